//! Serves the sandbox until it is killed and prints where.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dutybound_sandbox::{Ports, Sandbox, World};
use jiff::{SignedDuration, Timestamp};

/// Serves simulated PagerDuty, Opsgenie and IAM Identity Center on 127.0.0.1.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The world as JSON; without it a small organisation is served.
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    /// The length of a shift in the small organisation, such as 30s or PT12H.
    #[arg(long, default_value = "30s", conflicts_with = "world")]
    shift: SignedDuration,
    /// PagerDuty's port; 0 lets the system choose, as for the others.
    #[arg(long, default_value_t = 0)]
    pagerduty_port: u16,
    /// Opsgenie's port.
    #[arg(long, default_value_t = 0)]
    opsgenie_port: u16,
    /// AWS's port.
    #[arg(long, default_value_t = 0)]
    aws_port: u16,
    /// The control port: GET, DELETE /journal; GET, POST, DELETE /faults; GET, PUT /world; GET, POST /now.
    #[arg(long, default_value_t = 0)]
    control_port: u16,
    /// Prints the world as JSON and ends, as a start for one's own.
    #[arg(long)]
    print_world: bool,
}

fn read_world(arguments: &Arguments) -> Result<World, String> {
    let Some(path) = &arguments.world else {
        return Ok(World::small_organisation(Timestamp::now(), arguments.shift));
    };
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{shown} is not a world: {error}"))
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    let world = read_world(arguments)?;
    if arguments.print_world {
        let text = serde_json::to_string_pretty(&world).map_err(|error| error.to_string())?;
        println!("{text}");
        return Ok(());
    }
    let ports = Ports {
        pagerduty: arguments.pagerduty_port,
        opsgenie: arguments.opsgenie_port,
        aws: arguments.aws_port,
        control: arguments.control_port,
    };
    let sandbox = Sandbox::start_on(world, ports)
        .await
        .map_err(|error| format!("cannot bind a port on 127.0.0.1: {error}"))?;
    println!("pagerduty {}", sandbox.pagerduty_url());
    println!("opsgenie  {}", sandbox.opsgenie_url());
    println!("aws       {}", sandbox.aws_url());
    println!("control   {}", sandbox.control_url());
    std::future::pending().await
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("dutybound-sandbox: {message}");
            ExitCode::FAILURE
        }
    }
}
