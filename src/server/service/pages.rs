//! Listings in pages: entries of a namespace, namespaces, versions of an entry.
//!
//! A page is bounded by count and by bytes; it may hold fewer items than asked for, and then has a cursor.

use llm_config_domain::{
    Action, Entry, Key, ListQuery, Namespace, NamespaceSummary, Need, Page, Rights, limits, query,
};
use llm_config_replica::View;

use super::cursor::Listing;
use super::{
    Context, HistoryAnswer, HistoryRequest, ListAnswer, ListRequest, NamespacesAnswer,
    NamespacesRequest,
};
use super::{Service, environment, query_error};
use crate::error::ServiceError;

/// A page ends once it holds this much.
const PAGE_BYTES: usize = 8 << 20;

/// Namespaces looked at for one page, most of which the caller may not see.
const LOOKED_AT_MAX: usize = 10_000;

/// Items read at a time, so that a page exceeds its bytes by at most this many values.
const CHUNK: usize = 16;

impl Service {
    pub async fn list(
        &self,
        context: &Context,
        request: ListRequest,
    ) -> Result<ListAnswer, ServiceError> {
        let environment = super::named(&request.environment);
        let result = self.list_entries(context, request).await;
        self.counted_in(context, "list", environment, result)
    }

    async fn list_entries(
        &self,
        context: &Context,
        request: ListRequest,
    ) -> Result<ListAnswer, ServiceError> {
        let namespace = Namespace::parse(&request.namespace)?;
        let environment = environment(&request.environment)?;
        check_prefix("prefix", &request.prefix, limits::KEY_BYTES_MAX)?;
        let limit = page_limit(request.limit)?;
        let scope = ["list", namespace.as_str(), environment.as_str(), &request.prefix];
        let after =
            start(&Listing(&scope), request.cursor.as_deref(), |text| Ok(Key::parse(text)?))?;
        let need = Need::At { action: Action::Read, namespace: namespace.clone(), environment };
        self.fresh(context, &request.read, &[need]).await?;
        let prefix = request.prefix.clone();
        self.on_view(context, move |view, revision| {
            let page = collect(
                limit,
                after,
                Entry::size,
                |entry| entry.address.key.clone(),
                |after, limit| {
                    let part = ListQuery {
                        namespace: namespace.clone(),
                        environment,
                        prefix: prefix.clone(),
                        after,
                        limit,
                    };
                    query::list(view, &part).map_err(|error| {
                        query_error(error, revision, || "there is no such namespace".into())
                    })
                },
            )?;
            let scope = ["list", namespace.as_str(), environment.as_str(), &prefix];
            let next_cursor = next(&page, &Listing(&scope), |entry| {
                entry.address.key.as_str().as_bytes().to_vec()
            });
            Ok(ListAnswer { items: page.items, next_cursor, revision })
        })
        .await
    }

    pub async fn namespaces(
        &self,
        context: &Context,
        request: NamespacesRequest,
    ) -> Result<NamespacesAnswer, ServiceError> {
        let result = self.list_namespaces(context, request).await;
        self.counted(context, "namespaces", result)
    }

    async fn list_namespaces(
        &self,
        context: &Context,
        request: NamespacesRequest,
    ) -> Result<NamespacesAnswer, ServiceError> {
        check_prefix("prefix", &request.prefix, limits::NAMESPACE_BYTES_MAX)?;
        let limit = page_limit(request.limit)?;
        let prefix = request.prefix;
        let parse = |text: &str| Ok(Namespace::parse(text)?);
        let after = start(&Listing(&["namespaces", &prefix]), request.cursor.as_deref(), parse)?;
        self.fresh(context, &request.read, &[]).await?;
        let rights = self.rights(context)?;
        self.on_view(context, move |view, revision| {
            let page = readable(view, revision, &prefix, after, limit, &rights)?;
            let listing = Listing(&["namespaces", &prefix]);
            let (items, next) = page;
            let next_cursor = next.map(|last| listing.cursor(last.as_str().as_bytes()));
            Ok(NamespacesAnswer { items, next_cursor, revision })
        })
        .await
    }

    pub async fn history(
        &self,
        context: &Context,
        request: HistoryRequest,
    ) -> Result<HistoryAnswer, ServiceError> {
        let environment = super::named(&request.target.environment);
        let result = self.list_versions(context, request).await;
        self.counted_in(context, "history", environment, result)
    }

    async fn list_versions(
        &self,
        context: &Context,
        request: HistoryRequest,
    ) -> Result<HistoryAnswer, ServiceError> {
        let address = request.target.parse()?;
        let limit = page_limit(request.limit)?;
        let scope = [
            "history",
            address.namespace.as_str(),
            address.key.as_str(),
            address.environment.as_str(),
        ];
        let parse = |text: &str| {
            text.parse::<u64>().map_err(|_| ServiceError::invalid("cursor", "it is damaged"))
        };
        let before = start(&Listing(&scope), request.cursor.as_deref(), parse)?;
        self.fresh(context, &request.read, &[Need::at(Action::Read, &address)]).await?;
        self.on_view(context, move |view, revision| {
            let page = collect(
                limit,
                before,
                Entry::size,
                |entry| entry.version,
                |before, limit| {
                    query::history(view, &address, before, limit).map_err(|error| {
                        query_error(error, revision, || {
                            format!("there never was an entry {address}")
                        })
                    })
                },
            )?;
            let scope = [
                "history",
                address.namespace.as_str(),
                address.key.as_str(),
                address.environment.as_str(),
            ];
            let next_cursor =
                next(&page, &Listing(&scope), |entry| entry.version.to_string().into_bytes());
            Ok(HistoryAnswer { items: page.items, next_cursor, revision })
        })
        .await
    }
}

/// The namespaces that somebody may read something in, and where the next page begins.
fn readable(
    view: &View,
    revision: u64,
    prefix: &str,
    mut after: Option<Namespace>,
    limit: usize,
    rights: &Rights,
) -> Result<(Vec<NamespaceSummary>, Option<Namespace>), ServiceError> {
    let mut items = Vec::new();
    let mut looked_at = 0;
    loop {
        let page = query::namespaces(view, prefix, after, limit - items.len())
            .map_err(|error| query_error(error, revision, || "there are no namespaces".into()))?;
        looked_at += page.items.len();
        after = page.items.last().map(|item| item.namespace.clone());
        let may_read =
            |item: &NamespaceSummary| rights.allow_in_some(Action::Read, &item.namespace);
        items.extend(page.items.into_iter().filter(may_read));
        if !page.more || after.is_none() {
            return Ok((items, None));
        }
        if items.len() >= limit || looked_at >= LOOKED_AT_MAX {
            return Ok((items, after));
        }
    }
}

pub(super) fn page_limit(limit: Option<u64>) -> Result<usize, ServiceError> {
    let asked = limit.unwrap_or(limits::PAGE_LIMIT_DEFAULT as u64);
    usize::try_from(asked)
        .ok()
        .filter(|limit| (1..=limits::PAGE_LIMIT_MAX).contains(limit))
        .ok_or_else(|| {
            ServiceError::invalid("limit", format!("must be 1 to {}", limits::PAGE_LIMIT_MAX))
        })
}

/// A prefix selects names, so it cannot be longer than they are.
pub(super) fn check_prefix(
    field: &'static str,
    prefix: &str,
    bytes_max: usize,
) -> Result<(), ServiceError> {
    if prefix.len() > bytes_max {
        let reason = format!("has {} bytes, at most {bytes_max} are allowed", prefix.len());
        return Err(ServiceError::invalid(field, reason));
    }
    if prefix.chars().any(char::is_control) {
        return Err(ServiceError::invalid(field, "must not contain control characters"));
    }
    Ok(())
}

/// Where the page begins; an empty cursor is the first page.
pub(super) fn start<T>(
    listing: &Listing<'_>,
    cursor: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, ServiceError>,
) -> Result<Option<T>, ServiceError> {
    let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
    let position = listing.position(cursor)?;
    let text = std::str::from_utf8(&position)
        .map_err(|_| ServiceError::invalid("cursor", "it is damaged"))?;
    parse(text).map(Some)
}

pub(super) fn next<T>(
    page: &Page<T>,
    listing: &Listing<'_>,
    position: impl FnOnce(&T) -> Vec<u8>,
) -> Option<String> {
    let last = page.items.last().filter(|_| page.more)?;
    Some(listing.cursor(&position(last)))
}

/// Reads chunks until the page is full, by count or by bytes, or there is nothing more.
pub(super) fn collect<T, P>(
    limit: usize,
    mut position: Option<P>,
    size: impl Fn(&T) -> usize,
    position_of: impl Fn(&T) -> P,
    mut read: impl FnMut(Option<P>, usize) -> Result<Page<T>, ServiceError>,
) -> Result<Page<T>, ServiceError> {
    let mut items = Vec::new();
    let mut bytes = 0;
    loop {
        let chunk = read(position.take(), CHUNK.min(limit - items.len()))?;
        bytes += chunk.items.iter().map(&size).sum::<usize>();
        position = chunk.items.last().map(&position_of);
        items.extend(chunk.items);
        // A chunk without items cannot go on, whatever it says.
        let more = chunk.more && position.is_some();
        if !more || items.len() >= limit || bytes >= PAGE_BYTES {
            return Ok(Page { items, more });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of the numbers below `end`.
    fn numbers(
        end: usize,
    ) -> impl FnMut(Option<usize>, usize) -> Result<Page<usize>, ServiceError> {
        move |after, limit| {
            let from = after.map_or(0, |last| last + 1);
            let items: Vec<_> = (from..end).take(limit).collect();
            let more = from + items.len() < end;
            Ok(Page { items, more })
        }
    }

    fn page(limit: usize, end: usize, size: usize) -> (usize, bool) {
        let page = collect(limit, None, |_| size, |item| *item, numbers(end)).unwrap();
        assert_eq!(page.items, (0..page.items.len()).collect::<Vec<_>>());
        (page.items.len(), page.more)
    }

    #[test]
    fn a_page_is_bounded_by_count() {
        assert_eq!(page(100, 1_000, 1), (100, true));
        assert_eq!(page(100, 100, 1), (100, false));
        assert_eq!(page(100, 37, 1), (37, false));
        assert_eq!(page(1, 0, 1), (0, false));
    }

    #[test]
    fn a_page_is_bounded_by_bytes() {
        let (items, more) = page(1_000, 1_000, 1 << 20);
        assert!(more && items * (1 << 20) <= PAGE_BYTES + CHUNK * (1 << 20), "{items} items");
    }

    #[test]
    fn limits_outside_the_range_are_refused() {
        assert_eq!(page_limit(None).unwrap(), 100);
        assert_eq!(page_limit(Some(1_000)).unwrap(), 1_000);
        for bad in [0, 1_001, u64::MAX] {
            assert!(page_limit(Some(bad)).unwrap_err().to_string().starts_with("limit: "), "{bad}");
        }
    }
}
