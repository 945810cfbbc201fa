//! Writes a value, reads it back, looks at its history. Shows the typed calls; nothing is left behind but the history.
//!
//! Run it with LLM_CONFIG_ENDPOINTS (default 127.0.0.1:50051), LLM_CONFIG_TOKEN, and a namespace as the argument.

use std::error::Error;

use llm_config_client::{Client, Environment};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Model {
    name: String,
    max_tokens: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = client()?.namespace(namespace("examples/quick-start"));
    let app = app.environment(Environment::Production);

    let model = Model { name: "claude".into(), max_tokens: 1024 };
    let written = app.set("model", &model).comment("first rollout").tags(["example"]).await?;
    println!("version {} at revision {}", written.version, written.revision);

    let found = app.get::<Model>("model").await?.ok_or("what was just written is not there")?;
    assert_eq!((found.value, found.version), (model, written.version));
    assert!(app.get::<Model>("absent").await?.is_none());

    let history = app.history::<Model>("model").stream().collect_at_most(1000).await?;
    let newest = history.first().ok_or("no history")?;
    assert_eq!((newest.version, &*newest.comment), (written.version, "first rollout"));

    app.delete("model").expected_version(written.version).await?;
    assert!(app.get::<Model>("model").await?.is_none());
    println!("written, read, listed and deleted: ok");
    Ok(())
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
