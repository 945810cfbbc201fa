//! `context`: shows and changes the file of contexts. Needs no cluster, and asks none.

pub(crate) mod file;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Usage;
use crate::args::{ContextField, Contexts, Global, SetContext, TokenText};
use crate::output::{self, Output, cell, table};
use file::{Context, File};

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    current: bool,
    #[serde(flatten)]
    context: Context,
}

/// The output of these commands is that of the command line alone: a context that is wrong must not be in the way of
/// mending it.
pub(crate) fn run(
    given: &Global,
    command: Contexts,
    path: Option<PathBuf>,
    output: Output,
) -> anyhow::Result<()> {
    let path = path.ok_or_else(|| {
        Usage(format!("no place for a file of contexts; set HOME or {}", file::FILE))
    })?;
    let mut file = File::read(&path)?;
    match command {
        Contexts::List => list(&file, output),
        Contexts::Show { name } => {
            show(&file, &path, name.as_ref().or(given.context.as_ref()), output)
        }
        Contexts::Use { name } => {
            file.named(&name, &path)?;
            file.current = Some(name.clone());
            file.write(&path)?;
            output::say(&format!("{name} is the current context"));
            Ok(())
        }
        Contexts::Set(args) => set(file, &path, given, args),
        Contexts::Delete { name } => {
            file.named(&name, &path)?;
            file.contexts.remove(&name);
            let was_current = file.current.as_ref() == Some(&name);
            if was_current {
                file.current = None;
            }
            file.write(&path)?;
            let now = if was_current { "; no context is current now" } else { "" };
            output::say(&format!("context {name} is deleted{now}"));
            Ok(())
        }
    }
}

/// Without its token: shown is only that there is one.
fn shown(context: &Context) -> Context {
    let token = context.token.as_ref().map(|_| TokenText("********".to_owned()));
    Context { token, ..context.clone() }
}

fn rows(file: &File) -> Vec<Row<'_>> {
    let row = |(name, context)| {
        let name: &String = name;
        Row { name, current: file.current.as_ref() == Some(name), context: shown(context) }
    };
    file.contexts.iter().map(row).collect()
}

fn list(file: &File, output: Output) -> anyhow::Result<()> {
    output.print(&rows(file), |rows| {
        let mut table = table(&["CURRENT", "NAME", "ENDPOINTS", "ENVIRONMENT", "TOKEN"]);
        for Row { name, current, context } in rows {
            let token = match (&context.token, &context.token_file) {
                (Some(_), _) => "in this file".to_owned(),
                (None, Some(path)) => cell(&path.display().to_string()),
                (None, None) => "-".to_owned(),
            };
            let dash = |text: String| if text.is_empty() { "-".to_owned() } else { cell(&text) };
            table.add_row([
                if *current { "*" } else { "-" }.to_owned(),
                (*name).to_owned(),
                dash(context.endpoints.join(",")),
                dash(context.environment.clone().unwrap_or_default()),
                token,
            ]);
        }
        table
    })
}

fn show(file: &File, path: &Path, name: Option<&String>, output: Output) -> anyhow::Result<()> {
    let name = name.or(file.current.as_ref()).ok_or_else(|| {
        Usage(
            "no context is current; name one, or choose one with `llm-config context use NAME`"
                .to_owned(),
        )
    })?;
    let context = shown(file.named(name, path)?);
    let row = Row { name, current: file.current.as_ref() == Some(name), context };
    if output.format == crate::args::Format::Table {
        // What can be read back is the best form for people too.
        return Output { format: crate::args::Format::Yaml, ..output }.print(&row, |_| table(&[]));
    }
    output.print(&row, |_| table(&[]))
}

fn set(mut file: File, path: &Path, given: &Global, args: SetContext) -> anyhow::Result<()> {
    file::check_name(&args.name)?;
    if given.credentials.token.is_some() && !args.store_token {
        return Err(Usage(
            "a token does not belong in this file; give --token-file, or --store-token to have it there anyway".to_owned(),
        )
        .into());
    }
    let new = !file.contexts.contains_key(&args.name);
    let context = file.contexts.entry(args.name.clone()).or_default();
    for field in &args.unset {
        unset(context, *field);
    }
    change(context, given)?;
    if (file.contexts.len() == 1 && new) || args.r#use {
        file.current = Some(args.name.clone());
    }
    file.write(path)?;
    let what = if new { "made" } else { "changed" };
    let current = if file.current.as_ref() == Some(&args.name) { ", and current" } else { "" };
    output::say(&format!("context {} is {what}{current}: {}", args.name, path.display()));
    Ok(())
}

/// Takes over what was given on the command line. Files are kept by their whole path: the working directory is another
/// one tomorrow.
fn change(context: &mut Context, given: &Global) -> Result<(), Usage> {
    let whole = |path: &PathBuf| {
        std::path::absolute(path).map_err(|error| Usage(format!("{}: {error}", path.display())))
    };
    if !given.endpoints.is_empty() {
        context.endpoints.clone_from(&given.endpoints);
    }
    if let Some(token) = &given.credentials.token {
        (context.token, context.token_file) = (Some(token.clone()), None);
    }
    if let Some(path) = &given.credentials.token_file {
        (context.token, context.token_file) = (None, Some(whole(path)?));
    }
    for (kept, given) in [
        (&mut context.tls_ca, &given.tls.tls_ca),
        (&mut context.tls_cert, &given.tls.tls_cert),
        (&mut context.tls_key, &given.tls.tls_key),
    ] {
        if let Some(path) = given {
            *kept = Some(whole(path)?);
        }
    }
    if let Some(environment) = &given.env {
        context.environment = Some(environment.clone());
    }
    if let Some(output) = given.output {
        context.output = Some(output);
    }
    Ok(())
}

fn unset(context: &mut Context, field: ContextField) {
    match field {
        ContextField::Endpoints => context.endpoints.clear(),
        ContextField::Token => (context.token, context.token_file) = (None, None),
        ContextField::TlsCa => context.tls_ca = None,
        ContextField::TlsCert => context.tls_cert = None,
        ContextField::TlsKey => context.tls_key = None,
        ContextField::Env => context.environment = None,
        ContextField::Output => context.output = None,
    }
}
