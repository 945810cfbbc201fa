//! A prompt is changed, found bad, and rolled back; a live configuration sees each step.
//!
//! Run it with LLM_CONFIG_ENDPOINTS (default 127.0.0.1:50051), LLM_CONFIG_TOKEN, and a namespace as the argument.

use std::error::Error;
use std::time::Duration;

use llm_config_client::{Client, Config, Environment};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Prompts {
    system_prompt: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = client()?.namespace(namespace("examples/prompt-rollback"));
    let app = app.environment(Environment::Production);

    let good = app.set("system_prompt", "Answer briefly.").comment("as tested").await?;
    let mut config = app.live::<Prompts>().await?;
    sees(&mut config, "Answer briefly.").await?;

    let bad = app.set("system_prompt", "Answer at length.").comment("an experiment").await?;
    sees(&mut config, "Answer at length.").await?;

    // The answers got worse: back to the version that was good, unless somebody has acted already.
    let back = app
        .rollback("system_prompt", good.version)
        .expected_version(bad.version)
        .comment("the experiment failed")
        .await?;
    sees(&mut config, "Answer briefly.").await?;
    assert_eq!(back.version, bad.version + 1, "a rollback is a version of its own");
    assert!(config.snapshot().revision >= back.revision);

    let history = app.history::<String>("system_prompt").page_size(3).stream();
    let history = history.collect_at_most(1000).await?;
    let newest: Vec<_> = history.iter().take(3).map(|version| &*version.comment).collect();
    assert_eq!(newest, ["the experiment failed", "an experiment", "as tested"]);
    println!("changed at {}, rolled back at {}: ok", bad.revision, back.revision);
    Ok(())
}

async fn sees(config: &mut Config<Prompts>, prompt: &str) -> Result<(), Box<dyn Error>> {
    let wait = async {
        while config.get().system_prompt != prompt {
            config.changed().await?;
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await?
}

fn client() -> Result<Client, Box<dyn Error>> {
    let endpoints = std::env::var("LLM_CONFIG_ENDPOINTS");
    let endpoints = endpoints.unwrap_or_else(|_| "127.0.0.1:50051".to_owned());
    let mut builder = Client::builder().endpoints(endpoints.split(','));
    if let Ok(token) = std::env::var("LLM_CONFIG_TOKEN") {
        builder = builder.token(token);
    }
    Ok(builder.build()?)
}

/// The namespace to work in: the first argument, or this one.
fn namespace(default: &str) -> String {
    std::env::args().nth(1).unwrap_or_else(|| default.to_owned())
}
