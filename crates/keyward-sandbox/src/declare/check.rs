//! What a declaration refers to must exist, and must be known at the place it stands.

use std::collections::BTreeMap;

use super::expression::{Assignments, Condition, Expr, Match, Subject, Where};
use super::{Action, Collection, Link, OnRow, Operation, Presign};
use crate::{MAX_PAGE, SandboxError};

type Collections = BTreeMap<String, Collection>;

/// What a value may refer to where it stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    collections: &'a Collections,
    params: &'a [String],
    links: &'a [Link],
    /// There is a request: its body, caller, and new ids.
    request: bool,
    body: bool,
    row: bool,
    figures: bool,
}

/// Checks the values inside a collection.
pub(super) fn collection(collection: &Collection, pointer: &str) -> Result<(), SandboxError> {
    let Some(state) = &collection.state else {
        return Ok(());
    };
    let none = BTreeMap::new();
    let alone = Place {
        collections: &none,
        params: &[],
        links: &[],
        request: false,
        body: false,
        row: true,
        figures: false,
    };
    if let Some(initial) = &state.initial {
        let place = Place { request: true, body: true, row: false, ..alone };
        expr(initial, place, &format!("{pointer}/state/initial"))?;
    }
    for (index, later) in state.later.iter().enumerate() {
        let at = format!("{pointer}/state/later/{index}");
        assignments(&later.set, collection, alone, &format!("{at}/set"))?;
        let mut when = later.when.as_ref();
        while let Some(condition) = when {
            if !matches!(condition.subject, Subject::Field(_)) {
                return mistake(format!("{at}/when"), "nobody calls here: only `field`");
            }
            when = condition.when.as_deref();
        }
    }
    Ok(())
}

/// Checks an operation against the collections of the document.
pub(super) fn operation(
    operation: &Operation,
    collections: &Collections,
    pointer: &str,
) -> Result<(), SandboxError> {
    let action = &operation.action;
    let place = Place {
        collections,
        params: &operation.params,
        links: action.links(),
        request: true,
        body: operation.body.is_some(),
        row: matches!(action, Action::Patch(_) | Action::Act(_)),
        figures: matches!(action, Action::Create(_) | Action::Summary(_)),
    };
    let subject = match action.collection() {
        Some(name) => Some(known(name, collections, &format!("{pointer}/collection"))?),
        None => None,
    };
    links(action, place, pointer)?;
    match (action, subject) {
        (Action::Create(create), Some(collection)) => {
            assignments(&create.set, collection, place, &format!("{pointer}/set"))?;
            conditions(&create.require, place, false, &format!("{pointer}/require"))?;
            if let Some(content) = &create.content {
                needs_files(collection, &format!("{pointer}/content"))?;
                expr(content, place, &format!("{pointer}/content"))?;
            }
            presign(create.presign, collection, Presign::Upload, pointer)
        }
        (Action::List(list), Some(_)) => {
            if list.max_limit.is_some_and(|limit| limit == 0 || limit > MAX_PAGE) {
                let text = format!("between 1 and {MAX_PAGE}");
                return mistake(format!("{pointer}/maxLimit"), text);
            }
            filters(&list.only, place, &format!("{pointer}/where"))
        }
        (
            Action::Get(row) | Action::Patch(row) | Action::Delete(row) | Action::Act(row),
            Some(collection),
        ) => on_row(row, collection, place, action, pointer),
        (Action::Summary(summary), _) => {
            let at = format!("{pointer}/set");
            summary.set.values().try_for_each(|value| expr(value, place, &at))
        }
        _ => mistake(pointer, "no collection"),
    }
}

fn on_row(
    row: &OnRow,
    collection: &Collection,
    place: Place<'_>,
    action: &Action,
    pointer: &str,
) -> Result<(), SandboxError> {
    match &row.param {
        Some(name) if !place.params.contains(name) => {
            return mistake(format!("{pointer}/param"), "not a parameter of the path");
        }
        None if place.params.is_empty() => {
            return mistake(pointer, "the path has no parameter that names the row");
        }
        _ => {}
    }
    if matches!(action, Action::Patch(_)) && !place.body {
        return mistake(pointer, "a patch needs a request body");
    }
    if (row.from.is_some() || row.to.is_some()) && collection.state.is_none() {
        let text = "the collection has no `state`";
        return mistake(format!("{pointer}/from"), text);
    }
    if let Some(to) = &row.to {
        expr(to, place, &format!("{pointer}/to"))?;
    }
    filters(&row.only, place, &format!("{pointer}/where"))?;
    conditions(&row.require, place, true, &format!("{pointer}/require"))?;
    assignments(&row.set, collection, place, &format!("{pointer}/set"))?;
    let allowed = match (action, row.presign) {
        (Action::Act(_), Some(asked)) => asked,
        _ => Presign::Download,
    };
    presign(row.presign, collection, allowed, pointer)
}

fn links(action: &Action, place: Place<'_>, pointer: &str) -> Result<(), SandboxError> {
    for (index, link) in action.links().iter().enumerate() {
        let at = format!("{pointer}/links/{index}");
        let collection = known(&link.collection, place.collections, &format!("{at}/collection"))?;
        // a link is found before the others are: it cannot refer to them
        let before = Place { links: &[], figures: false, ..place };
        expr(&link.id, before, &format!("{at}/id"))?;
        conditions(&link.require, before, true, &format!("{at}/require"))?;
        if !action.writes() && !link.set.is_empty() {
            return mistake(format!("{at}/set"), "this operation changes nothing");
        }
        let linked = Place { row: true, ..before };
        assignments(&link.set, collection, linked, &format!("{at}/set"))?;
    }
    Ok(())
}

fn presign(
    asked: Option<Presign>,
    collection: &Collection,
    allowed: Presign,
    pointer: &str,
) -> Result<(), SandboxError> {
    let Some(asked) = asked else { return Ok(()) };
    let at = format!("{pointer}/presign");
    if asked != allowed {
        return mistake(at, "this operation does not presign that");
    }
    needs_files(collection, &at)
}

fn needs_files(collection: &Collection, pointer: &str) -> Result<(), SandboxError> {
    if collection.files.is_some() {
        return Ok(());
    }
    mistake(pointer, "the collection has no `files`")
}

fn conditions(
    conditions: &[Condition],
    place: Place<'_>,
    row: bool,
    pointer: &str,
) -> Result<(), SandboxError> {
    for (index, first) in conditions.iter().enumerate() {
        let mut next = Some(first);
        while let Some(condition) = next {
            let at = format!("{pointer}/{index}");
            match &condition.subject {
                Subject::Field(_) if !row => return mistake(at, "there is no row yet"),
                Subject::Body(_) if !place.body => return mistake(at, "no request body"),
                _ => next = condition.when.as_deref(),
            }
        }
    }
    Ok(())
}

fn assignments(
    set: &Assignments,
    collection: &Collection,
    place: Place<'_>,
    pointer: &str,
) -> Result<(), SandboxError> {
    for (field, value) in set {
        let at = format!("{pointer}/{}", super::escaped(field));
        if *field == collection.id_field || collection.ages.contains_key(field) {
            return mistake(at, "the sandbox keeps this field itself");
        }
        expr(value, place, &at)?;
    }
    Ok(())
}

fn filters(filters: &Where, place: Place<'_>, pointer: &str) -> Result<(), SandboxError> {
    for (field, wanted) in filters {
        if let Match::Param(name) = wanted
            && !place.params.contains(name)
        {
            let at = format!("{pointer}/{}", super::escaped(field));
            return mistake(at, "not a parameter of the path");
        }
    }
    Ok(())
}

fn expr(value: &Expr, place: Place<'_>, pointer: &str) -> Result<(), SandboxError> {
    let figure = |collection: &str, filter: &[&Where]| {
        if !place.figures {
            return mistake(pointer, "figures stand in `set` of `create` and `summary` only");
        }
        known(collection, place.collections, pointer)?;
        filter.iter().try_for_each(|only| filters(only, place, pointer))
    };
    match value {
        Expr::Body(_) | Expr::Sha256(_) if !place.body => mistake(pointer, "no request body"),
        Expr::Caller(_) | Expr::NewId(_) if !place.request => {
            mistake(pointer, "nobody calls here: only const, field, now, choose")
        }
        Expr::Param(name) if !place.params.contains(name) => {
            mistake(pointer, "not a parameter of the path")
        }
        Expr::Field(_) if !place.row => mistake(pointer, "there is no row here"),
        Expr::Const(_)
        | Expr::Now(_)
        | Expr::Body(_)
        | Expr::Sha256(_)
        | Expr::Caller(_)
        | Expr::NewId(_)
        | Expr::Param(_)
        | Expr::Field(_) => Ok(()),
        Expr::Choose(choose) => {
            expr(&choose.on, place, pointer)?;
            let values = choose.cases.values().chain(choose.otherwise.as_ref());
            values.into_iter().try_for_each(|case| expr(case, place, pointer))
        }
        Expr::Linked(linked) => {
            if place.links.iter().any(|link| link.collection == linked.collection) {
                return Ok(());
            }
            mistake(pointer, "no link of this operation is to that collection")
        }
        Expr::Count(count) => figure(&count.collection, &[&count.only]),
        Expr::Percent(percent) => figure(&percent.collection, &[&percent.of, &percent.only]),
        Expr::Latest(latest) => figure(&latest.collection, &[&latest.only]),
    }
}

fn known<'c>(
    name: &str,
    collections: &'c Collections,
    pointer: &str,
) -> Result<&'c Collection, SandboxError> {
    collections
        .get(name)
        .ok_or_else(|| SandboxError::document(pointer, format!("no collection `{name}`")))
}

fn mistake<T>(pointer: impl Into<String>, text: impl Into<String>) -> Result<T, SandboxError> {
    Err(SandboxError::document(pointer, text))
}
