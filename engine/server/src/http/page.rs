//! Lists, newest first, a page at a time: what is live from the state, what is over from the views.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stanch_journal::Table;
use uuid::Uuid;

use super::Http;
use super::problem::Problem;

/// How many items a page has where nobody says.
const DEFAULT: usize = 50;
/// How many items a page has at most.
const MOST: usize = 500;

/// One page of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Page<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last one.
    pub next: Option<String>,
}

/// What every list can be asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    pub limit: Option<usize>,
    pub cursor: Option<String>,
    pub state: Option<String>,
    pub playbook: Option<String>,
}

impl ListQuery {
    /// The number of items and the id below which they begin.
    fn bounds(&self) -> Result<(usize, Option<Uuid>), Problem> {
        let limit = match self.limit {
            None => DEFAULT,
            Some(0) => {
                let remedy = "ask for 1 to 500 items";
                return Err(Problem::new(StatusCode::BAD_REQUEST, "query.limit", "limit is 0", remedy));
            }
            Some(limit) => limit.min(MOST),
        };
        let before = self.cursor.as_deref().map(Uuid::parse_str).transpose().map_err(|_| {
            let remedy = "use the next of the page before as it is";
            Problem::new(StatusCode::BAD_REQUEST, "query.cursor", "the cursor is none", remedy)
        })?;
        Ok((limit, before))
    }
}

/// A page of items that are all at hand, which must be in descending order of their ids.
pub(super) fn page_of<T>(query: &ListQuery, items: impl Iterator<Item = (Uuid, T)>) -> Result<Page<T>, Problem> {
    let (limit, before) = query.bounds()?;
    let items = items.filter(|(id, _)| before.is_none_or(|before| *id < before));
    let mut items: Vec<(Uuid, T)> = items.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|(id, _)| id.to_string());
    Ok(Page { items: items.into_iter().map(|(_, item)| item).collect(), next })
}

impl Http {
    /// A page of `live` items, which must be in descending order of their ids, and those of a table. Where both have an
    /// id, the live one counts.
    pub(super) async fn page<T>(
        &self,
        query: &ListQuery,
        table: Table,
        live: Vec<(Uuid, T)>,
        keep: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<Page<T>, Problem>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (limit, before) = query.bounds()?;
        let views = std::sync::Arc::clone(&self.app.views);
        let scan = move || {
            let known: BTreeSet<Uuid> = live.iter().map(|(id, _)| *id).collect();
            let wanted = live.into_iter().filter(|(id, item)| before.is_none_or(|before| *id < before) && keep(item));
            let mut items: Vec<(Uuid, T)> = wanted.take(limit + 1).collect();
            let mut found = 0;
            let before = before.map(|before| before.into_bytes());
            let scanned = views.scan(table, before.as_ref().map(|before| &before[..]), |key, value| {
                let Ok(id) = Uuid::from_slice(key) else { return ControlFlow::Continue(()) };
                if known.contains(&id) {
                    return ControlFlow::Continue(());
                }
                if let Ok(item) = serde_json::from_slice::<T>(value)
                    && keep(&item)
                {
                    items.push((id, item));
                    found += 1;
                }
                if found > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            scanned.map(|()| items)
        };
        let scanned = tokio::task::spawn_blocking(scan).await.map_err(Problem::unavailable)?;
        let mut items = scanned.map_err(Problem::unavailable)?;
        items.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|(id, _)| id.to_string());
        Ok(Page { items: items.into_iter().map(|(_, item)| item).collect(), next })
    }
}
