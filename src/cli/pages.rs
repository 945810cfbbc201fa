//! Walks through all pages of a listing.

use anyhow::bail;
use llm_config_client::Error;

/// Entries per page: with the largest values a page still fits into one answer.
pub(crate) const PAGE_LIMIT: u32 = 100;

/// Fetches page after page; `fetch` gets the cursor (empty at first) and gives items and the next cursor.
pub(crate) async fn all<T, F, Fut>(mut fetch: F) -> anyhow::Result<Vec<T>>
where
    F: FnMut(String) -> Fut,
    Fut: Future<Output = Result<(Vec<T>, String), Error>>,
{
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let (page, next) = fetch(cursor.clone()).await?;
        items.extend(page);
        if !advance(&mut cursor, next)? {
            return Ok(items);
        }
    }
}

/// Turns the cursor of a page into that of the next one, if there is one.
pub(crate) fn advance(cursor: &mut String, next: String) -> anyhow::Result<bool> {
    if next.is_empty() {
        return Ok(false);
    }
    if next == *cursor {
        bail!("the node's listing does not advance: the same cursor came twice");
    }
    *cursor = next;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn walks_to_the_last_page() {
        let items = all(async |cursor: String| {
            let page: usize = cursor.parse().unwrap_or(0);
            let next = if page < 2 { (page + 1).to_string() } else { String::new() };
            Ok::<_, Error>((vec![page], next))
        })
        .await
        .unwrap();
        assert_eq!(items, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_listing_that_does_not_advance_is_an_error() {
        let result = all(async |_| Ok::<_, Error>((vec![0], "same".to_owned()))).await;
        assert!(result.is_err());
    }
}
