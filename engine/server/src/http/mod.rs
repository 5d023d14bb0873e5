//! HTTP: what comes in is checked and handed on, what is asked for is read from durable state.
//!
//! One file a subject, each with its routes, which are documented where they are made (`openapi`). Absent: decisions. Whatever
//! changes something goes through the executor's handle; whatever is shown is durable.

mod alertmanager;
mod approvals;
mod artifacts;
mod audit;
mod body;
mod clock;
mod dead_letters;
mod events;
mod extract;
mod guard;
mod health;
mod holds;
mod incidents;
mod inforce;
mod metrics;
mod openapi;
mod page;
mod playbooks;
mod prefer;
mod problem;
mod run_view;
mod runs;
mod stream;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use tokio::sync::Semaphore;

use crate::app::App;
use metrics::Metrics;
use openapi::Routes;
use problem::Problem;

pub(crate) use openapi::document;

/// How many streams may be open at once.
const STREAMS: usize = 256;

/// What handlers share.
pub(crate) struct Http {
    app: App,
    metrics: Arc<Metrics>,
    streams: Arc<Semaphore>,
    /// The host of `external_url`, without a port.
    external_host: Option<String>,
}

type Shared = Arc<Http>;

/// Every route, over what is shared. Must be called within a runtime: it starts the task that counts durable records.
pub(crate) fn router(app: App) -> Router {
    let metrics = Arc::new(Metrics::after(&app.handle.state()));
    tokio::spawn(metrics::follow(Arc::clone(&metrics), app.clone()));
    let external_host = app.config.external_url.as_deref().and_then(guard::host_of_url);
    let streams = Arc::new(Semaphore::new(STREAMS));
    let shared = Arc::new(Http { app, metrics, streams, external_host });
    routes()
        .into_router()
        .fallback(async || {
            let remedy = "GET /api/v1/openapi.json lists what there is";
            Problem::new(StatusCode::NOT_FOUND, "route.unknown", "nothing is here", remedy)
        })
        .method_not_allowed_fallback(async || {
            let remedy = "use a method that the Allow header names";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method.not-allowed", "this method does nothing here", remedy)
        })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

fn routes() -> Routes {
    let routes = Routes::default();
    let routes = alertmanager::routes(routes);
    let routes = events::routes(routes);
    let routes = runs::routes(routes);
    let routes = artifacts::routes(routes);
    let routes = approvals::routes(routes);
    let routes = inforce::routes(routes);
    let routes = holds::routes(routes);
    let routes = clock::routes(routes);
    let routes = incidents::routes(routes);
    let routes = playbooks::routes(routes);
    let routes = dead_letters::routes(routes);
    let routes = audit::routes(routes);
    let routes = stream::routes(routes);
    health::routes(routes)
}
