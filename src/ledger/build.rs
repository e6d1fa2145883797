//! Makes a new migration file rebuild the crate, which `sqlx::migrate!` does not notice by itself.

fn main() {
    println!("cargo::rerun-if-changed=src/ledger/migrations");
}
