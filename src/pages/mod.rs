//! The status page and the pages of projects and people: what stands, what comes, what to look at. They read the record
//! and ask nobody.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::chain;
use crate::http::Site;
use crate::ledger::LedgerError;
use crate::model::{Person, ProjectName};
use crate::text::clean;

mod about;
pub(crate) mod columns;
pub(crate) mod filters;
mod fresh;
mod hours;
mod now;
mod overview;
mod words;

use fresh::Fresh;
use hours::{FourWeeks, Past};
use now::Now;

/// How long what stands now is shown before it is read again, however many ask.
const NOW_LASTS: SignedDuration = SignedDuration::from_secs(2);
/// The same for access hours, which are costly to add up.
const HOURS_LAST: SignedDuration = SignedDuration::from_secs(60);
/// How long a page waits for what stands now.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a page waits for access hours; then it shows older ones, or none.
const PATIENCE_FOR_HOURS: Duration = Duration::from_secs(2);

/// What the pages are made from.
struct Pages {
    site: Arc<Site>,
    now: Arc<Fresh<Now>>,
    hours: Arc<Fresh<FourWeeks>>,
    past: Mutex<Past>,
}

/// The pages with their style, script and icon. Unknown paths get a page that says so.
pub(crate) fn router(site: Arc<Site>) -> Router {
    let pages = Arc::new(Pages {
        site,
        now: Arc::new(Fresh::for_as_long_as(NOW_LASTS)),
        hours: Arc::new(Fresh::for_as_long_as(HOURS_LAST)),
        past: Mutex::default(),
    });
    Router::new()
        .route("/", get(status))
        .route("/project/{name}", get(project))
        .route("/person/{email}", get(person))
        .route(
            "/style.css",
            get(|| asset("text/css; charset=utf-8", include_str!("style.css"))),
        )
        .route(
            "/app.js",
            get(|| asset("text/javascript; charset=utf-8", include_str!("app.js"))),
        )
        .route("/icon.svg", get(|| asset("image/svg+xml", include_str!("icon.svg"))))
        .fallback(|| async {
            missing("There is no such page: there are the status page, /metrics, /healthz and /readyz")
        })
        .with_state(pages)
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

async fn status(State(pages): State<Arc<Pages>>) -> Response {
    let Some(now) = pages.now().await else {
        return unreadable();
    };
    page(&overview::overview(&now, pages.hours().await.as_deref()))
}

async fn project(State(pages): State<Arc<Pages>>, Path(name): Path<String>) -> Response {
    let Some(now) = pages.now().await else {
        return unreadable();
    };
    let hours = pages.hours().await;
    match about::project(&now, hours.as_deref(), &ProjectName(name)) {
        Some(view) => page(&view),
        None => missing("There is no such project in the policy in force"),
    }
}

async fn person(State(pages): State<Arc<Pages>>, Path(email): Path<String>) -> Response {
    let Some(now) = pages.now().await else {
        return unreadable();
    };
    let hours = pages.hours().await;
    let view = Person::parse(&email)
        .ok()
        .and_then(|person| about::person(&now, hours.as_deref(), &person));
    match view {
        Some(view) => page(&view),
        None => missing(
            "Nobody of this address is in the policy, on a schedule ahead, or in the record of the last four weeks",
        ),
    }
}

impl Pages {
    /// What stands now. `None` where the record cannot be read.
    async fn now(self: &Arc<Self>) -> Option<Arc<Now>> {
        let pages = Arc::clone(self);
        let read = async move |at| now::read(&pages.site, at).await;
        let at = self.site.clock.now();
        latest(&self.now, at, PATIENCE, read).await;
        self.now.current(self.site.clock.now()).or_else(|| {
            // It took longer than it lasts; what was asked for after this request began is still an answer to it.
            let (from, now) = self.now.last()?;
            (at <= from).then_some(now)
        })
    }

    /// Access hours, as new as could be had in a moment. `None` where none were ever added up.
    async fn hours(self: &Arc<Self>) -> Option<Arc<FourWeeks>> {
        let pages = Arc::clone(self);
        let read = async move |at| {
            let in_use = Arc::clone(&pages.site.in_use.borrow());
            let mut past = pages.past.lock().await;
            hours::read(&pages.site.ledger, &in_use, &mut past, at).await
        };
        latest(&self.hours, self.site.clock.now(), PATIENCE_FOR_HOURS, read).await;
        self.hours.last().map(|(_, hours)| hours)
    }
}

/// Waits until `fresh` holds a fresh value, a read of it failed, or patience is over. The read runs on a thread of its own,
/// away from the daemon's work, and goes on when nobody waits any more.
async fn latest<T, R>(fresh: &Arc<Fresh<T>>, at: Timestamp, patience: Duration, read: R)
where
    T: Send + Sync + 'static,
    R: AsyncFnOnce(Timestamp) -> Result<T, LedgerError> + Send + 'static,
{
    let mut next = fresh.next();
    if fresh.current(at).is_some() {
        return;
    }
    if let Some(work) = fresh.begin(at) {
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || match runtime.block_on(read(at)) {
            Ok(value) => work.done(value),
            Err(error) => tracing::warn!(error = %clean(&chain(&error)), "a page could not read the record"),
        });
    }
    // Whether it came, failed or takes too long, the caller looks at what is there.
    drop(tokio::time::timeout(patience, next.changed()).await);
}

fn page(view: &impl Template) -> Response {
    match view.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the page could not be written; see the log\n",
            )
                .into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "plain.html", config = "src/pages/askama.toml")]
struct Plain {
    title: &'static str,
    text: &'static str,
}

fn missing(text: &'static str) -> Response {
    let title = "Not found";
    (StatusCode::NOT_FOUND, page(&Plain { title, text })).into_response()
}

fn unreadable() -> Response {
    let title = "The record cannot be read";
    let text = "What stands now is not known to this page; the log says why. The daemon goes on as far as it can: \
                /healthz and the metrics tell.";
    (StatusCode::SERVICE_UNAVAILABLE, page(&Plain { title, text })).into_response()
}

#[cfg(test)]
mod tests;
