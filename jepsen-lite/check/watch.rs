//! Watches: every change in the scope is delivered once, in order, all of a revision together; also over a break and a new
//! beginning elsewhere; and a bookmark promises nothing that was not delivered.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, Index, KeyId, Point};
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Keyed, Outcome, Scope};

/// All known changes of a scope, in the order of revisions.
type Changes = Vec<(u64, KeyId, Point)>;

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let mut watches: BTreeMap<u64, Vec<Index>> = BTreeMap::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Call::WatchOpen { watch, .. }
        | Call::WatchBatch { watch }
        | Call::WatchEnd { watch, .. }) = operation.call
        else {
            continue;
        };
        watches.entry(watch).or_default().push(by);
    }
    let mut scopes: BTreeMap<&Scope, Changes> = BTreeMap::new();
    for (watch, mut records) in watches {
        records.sort_by_key(|by| {
            let operation = &facts.operations[*by];
            (operation.completed_ns, operation.id)
        });
        let mut reader = Reader { facts, watch, scope: None, delivered: None, last: None };
        for by in records {
            reader.take(by, &mut scopes, &mut found);
        }
    }
    found.verdict()
}

/// All known changes of a scope.
fn changes(facts: &Facts<'_>, scope: &Scope) -> Changes {
    let mut changes: Changes = facts
        .in_scope(scope)
        .into_iter()
        .flat_map(|key| {
            facts.log[key as usize].iter().map(move |point| (point.revision, key, *point))
        })
        .collect();
    changes.sort_by_key(|(revision, key, _)| (*revision, *key));
    changes
}

/// Follows one watch.
struct Reader<'f, 'h> {
    facts: &'f Facts<'h>,
    watch: u64,
    scope: Option<Scope>,
    /// Everything up to here was delivered, or not asked for.
    delivered: Option<u64>,
    /// What the last thing was, to be named.
    last: Option<Index>,
}

impl<'h> Reader<'_, 'h> {
    fn fail(
        &self,
        rule: &'static str,
        by: Index,
        also: Option<Index>,
        found: &mut Findings,
        sentence: &str,
    ) {
        let named = [Some(by), also, self.last].into_iter().flatten();
        found.fail(
            rule,
            None,
            named.map(|by| self.facts.id(by)),
            format!("watch {}: {sentence}", self.watch),
        );
    }

    fn take(&mut self, by: Index, scopes: &mut BTreeMap<&'h Scope, Changes>, found: &mut Findings) {
        let facts = self.facts;
        // The operations of watches are never merged, so they are the history's own.
        let operation = match &facts.operations[by] {
            std::borrow::Cow::Borrowed(operation) => *operation,
            std::borrow::Cow::Owned(_) => return,
        };
        match (&operation.call, &operation.answer, operation.outcome) {
            (Call::WatchOpen { scope, from_revision, .. }, _, Outcome::Ok) => {
                scopes.entry(scope).or_insert_with(|| changes(facts, scope));
                if self.scope.as_ref().is_some_and(|known| known != scope) {
                    self.fail("resumed", by, None, found, "it was opened again for another scope");
                }
                let asked = from_revision.map(|from| from.saturating_sub(1)).or(operation.revision);
                match (self.delivered, asked) {
                    // Whoever leaves something out cannot expect it.
                    (_, Some(asked)) => self.delivered = Some(asked),
                    (Some(_), None) => self.delivered = None,
                    (None, None) => {}
                }
                self.scope = Some(scope.clone());
            }
            // What it may not have is told, and is not more than it asked for.
            (
                Call::WatchOpen { from_revision: Some(from), .. },
                Some(Answer::Compacted { oldest_revision }),
                Outcome::Fail,
            ) => {
                found.checked += 1;
                if from >= oldest_revision {
                    let sentence = format!(
                        "it asked from revision {from} on, which is refused as forgotten, where {oldest_revision} is the oldest that is not"
                    );
                    self.fail("compacted", by, None, found, &sentence);
                }
            }
            (Call::WatchBatch { .. }, Some(Answer::Events { revision, events }), Outcome::Ok) => {
                let Some(scope) = self.scope.clone() else {
                    return self.fail(
                        "opened",
                        by,
                        None,
                        found,
                        "something came before it was opened",
                    );
                };
                let Some(all) = scopes.get(&scope) else { return };
                found.checked += 1;
                self.batch(by, *revision, events, &scope, all, found);
                self.delivered = Some(self.delivered.unwrap_or(0).max(*revision));
                self.last = Some(by);
            }
            (Call::WatchEnd { up_to, .. }, _, outcome) => {
                found.checked += 1;
                let delivered = self.delivered.unwrap_or(0);
                if outcome == Outcome::Fail || delivered < *up_to {
                    let sentence =
                        format!("it never came to revision {up_to}, and stopped at {delivered}");
                    self.fail("reliable", by, None, found, &sentence);
                }
            }
            _ => {}
        }
    }

    fn batch(
        &self,
        by: Index,
        revision: u64,
        events: &[Keyed],
        scope: &Scope,
        all: &Changes,
        found: &mut Findings,
    ) {
        let facts = self.facts;
        if let Some(delivered) = self.delivered {
            if revision < delivered && events.is_empty() {
                // A node that is behind promises less than another one did, and nothing wrong.
                return;
            }
            if revision < delivered {
                let sentence = format!("revision {revision} came after revision {delivered}");
                return self.fail("ordered", by, None, found, &sentence);
            }
            if revision == delivered && !events.is_empty() {
                let sentence = format!(
                    "revision {revision} came, and had been delivered or not been asked for"
                );
                return self.fail("unique", by, None, found, &sentence);
            }
            let between = |low: u64, high: u64| {
                let from = all.partition_point(|(at, _, _)| *at <= low);
                let to = all.partition_point(|(at, _, _)| *at < high);
                all.get(from..to).unwrap_or_default()
            };
            // A bookmark speaks for its own revision too.
            let end = if events.is_empty() { revision.saturating_add(1) } else { revision };
            if let Some((at, key, point)) = between(delivered, end).first() {
                let rule = if events.is_empty() { "bookmark" } else { "reliable" };
                let sentence = format!(
                    "{} of revision {revision} came after {delivered}, and version {} of {} at revision {at} was left out",
                    if events.is_empty() { "a bookmark" } else { "events" },
                    point.version,
                    facts.name(*key),
                );
                return self.fail(rule, by, Some(point.witness), found, &sentence);
            }
        }
        if events.is_empty() {
            return;
        }
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for event in events {
            if !scope.contains(&event.key) {
                let sentence = format!("{} was not asked for", event.key);
                self.fail("filter", by, None, found, &sentence);
            }
            if event.entry.revision != revision {
                let sentence = format!(
                    "an event of revision {} came with those of revision {revision}",
                    event.entry.revision
                );
                self.fail("atomic", by, None, found, &sentence);
            }
            if !seen.insert(&event.key) {
                let sentence = format!("{} came twice at revision {revision}", event.key);
                self.fail("unique", by, None, found, &sentence);
            }
            self.content(by, event, found);
        }
        let from = all.partition_point(|(at, _, _)| *at < revision);
        let here = all.iter().skip(from).take_while(|(at, _, _)| *at == revision);
        for (_, key, point) in here {
            if !seen.contains(facts.name(*key)) {
                let sentence = format!(
                    "of revision {revision} the change of {} did not come with the others",
                    facts.name(*key)
                );
                self.fail("atomic", by, Some(point.witness), found, &sentence);
            }
        }
    }

    /// An event is what the replay has.
    fn content(&self, by: Index, event: &Keyed, found: &mut Findings) {
        let facts = self.facts;
        let Some(key) = facts.key_id(&event.key) else { return };
        let value = facts.shown_as(key, &event.entry);
        let Some(point) = facts.change_at(key, event.entry.revision) else { return };
        if (point.version, point.value) != (event.entry.version, value) {
            let sentence = format!(
                "{} at revision {} came as version {} ({}), and is version {} ({})",
                event.key,
                point.revision,
                event.entry.version,
                facts.show(value),
                point.version,
                facts.show(point.value)
            );
            self.fail("content", by, Some(point.witness), found, &sentence);
        }
    }
}
