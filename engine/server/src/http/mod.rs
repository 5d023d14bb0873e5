//! Stub.
use crate::app::App;
pub(crate) fn router(_app: App) -> axum::Router {
    axum::Router::new()
}
