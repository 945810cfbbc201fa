//! Fills a cache file, then starts again with endpoints where nobody listens, and is served from the file.
//!
//! Run it with LLM_CONFIG_ENDPOINTS (default 127.0.0.1:50051), LLM_CONFIG_TOKEN, and a namespace as the argument.

use std::error::Error;
use std::time::Duration;

use llm_config_client::{Client, Source};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Settings {
    model: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = namespace("examples/offline-start");
    let cache = std::env::temp_dir().join(format!("llm-config-example-{}", std::process::id()));
    let result = run(&name, &cache).await;
    // Whatever happened; without a node there is no file yet.
    if cache.exists() {
        std::fs::remove_file(&cache)?;
    }
    result
}

async fn run(name: &str, cache: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let app = client()?.namespace(name);
    app.set("model", "claude").await?;
    let online = app.live::<Settings>().cache_file(cache).await?;
    assert_eq!(online.snapshot().source, Source::Node);
    if let Some(problem) = online.status().cache_problem {
        return Err(problem.into());
    }
    let revision = online.snapshot().revision;
    drop(online);

    // Nobody listens on port 1.
    let nobody = Client::builder().endpoints(["127.0.0.1:1"]).build()?.namespace(name);
    let offline = nobody.live::<Settings>().cache_file(cache).start_timeout(Duration::from_secs(1));
    let offline = offline.await?;
    let status = offline.status();
    assert_eq!((status.source, status.revision), (Source::File, revision));
    assert_eq!(offline.get().model, "claude");
    assert!(status.problem.is_some(), "that no node answers is told");
    println!("{:?}, last heard of {:?} ago: ok", offline.get(), status.last_contact_age);
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
