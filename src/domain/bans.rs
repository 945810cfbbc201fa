//! Addresses that are shut out for a while, longer each time they come back. Every node keeps them out.
//!
//! When an address deserves it is decided where requests come in; how long is decided here, because only the state knows
//! how often it was banned before.

use crate::command::{Ban, BanOrder};
use crate::keys;
use crate::limits;
use crate::outcome::{Outcome, Rejection};
use crate::overlay::Overlay;
use crate::query::{Meta, QueryResult};
use crate::record::Record as _;
use crate::store::{self, Reader, StoreError};
use crate::wire;

/// Bans an address. One that is banned stays as it is: several nodes may ask for the same.
pub(crate) fn ban<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    order: &BanOrder,
) -> QueryResult<Outcome> {
    let now_ms = meta.last_time_ms;
    let known = get(store, &order.address)?;
    if let Some(known) = known.as_ref().filter(|known| known.until_ms > now_ms) {
        return Ok(Outcome::Banned { until_ms: known.until_ms, strikes: known.strikes });
    }
    if known.is_none() {
        if meta.bans >= limits::BANS_MAX {
            forget(store, meta)?;
        }
        if meta.bans >= limits::BANS_MAX {
            let (size, limit) = (meta.bans + 1, limits::BANS_MAX);
            let what = "the table of bans".into();
            return Err(Rejection::TooLarge { what, size, limit }.into());
        }
        meta.bans += 1;
    }
    let before = known.filter(|known| remembered(known, now_ms)).map_or(0, |known| known.strikes);
    let doublings = before.min(u32::BITS - 1);
    let length = order.first_ms.saturating_mul(1 << doublings).min(order.longest_ms);
    let ban = Ban {
        address: order.address.clone(),
        until_ms: now_ms.saturating_add(length),
        strikes: before.saturating_add(1),
        reason: order.reason.clone(),
        since_ms: now_ms,
    };
    store.put(keys::ban(&ban.address), wire::Ban::from(&ban).to_bytes());
    meta.bans_revision += 1;
    Ok(Outcome::Banned { until_ms: ban.until_ms, strikes: ban.strikes })
}

/// Whether it still counts for the length of the next one.
fn remembered(ban: &Ban, now_ms: u64) -> bool {
    ban.until_ms.saturating_add(limits::BAN_MEMORY_MS) > now_ms
}

/// Lifts a ban, and forgives the ones before it.
pub(crate) fn lift<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    address: &str,
) -> QueryResult<Outcome> {
    if get(store, address)?.is_none() {
        return Err(Rejection::NotFound.into());
    }
    store.delete(keys::ban(address));
    meta.bans = meta.bans.saturating_sub(1);
    meta.bans_revision += 1;
    Ok(Outcome::Done)
}

/// Makes room: lets go of bans that are over, those that would still count last.
fn forget<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
) -> Result<(), StoreError> {
    let now_ms = meta.last_time_ms;
    let mut over: Vec<Ban> = all(store)?.into_iter().filter(|ban| ban.until_ms <= now_ms).collect();
    over.sort_by(|a, b| (a.until_ms, &a.address).cmp(&(b.until_ms, &b.address)));
    for ban in over.into_iter().take(limits::EVICTIONS_PER_COMMAND_MAX) {
        store.delete(keys::ban(&ban.address));
        meta.bans = meta.bans.saturating_sub(1);
    }
    Ok(())
}

fn get<R: Reader + ?Sized>(store: &R, address: &str) -> Result<Option<Ban>, StoreError> {
    let bytes = store.get(&keys::ban(address))?;
    Ok(bytes.map(wire::Ban::from_bytes).transpose()?.map(Ban::from))
}

/// Every address that is or was banned, bounded by [`limits::BANS_MAX`], by address.
pub fn all<R: Reader + ?Sized>(reader: &R) -> Result<Vec<Ban>, StoreError> {
    store::all(reader, keys::bans(), |bytes| wire::Ban::from_bytes(bytes).map(Ban::from))
}
