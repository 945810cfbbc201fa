//! Follows a namespace as a struct: base values, an override for production, and a value that does not fit.
//!
//! Run it with LLM_CONFIG_ENDPOINTS (default 127.0.0.1:50051), LLM_CONFIG_TOKEN, and a namespace as the argument.

use std::error::Error;
use std::time::Duration;

use llm_config_client::{Client, Config, Environment};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Settings {
    model: String,
    temperature: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let base = client()?.namespace(namespace("examples/live-config"));
    let production = base.clone().environment(Environment::Production);
    base.set("model", "claude").await?;
    base.set("temperature", &0.2).await?;

    let mut config = production.live::<Settings>().await?;
    until(&mut config, |settings| settings.model == "claude").await?;

    production.set("temperature", &0.7).comment("livelier").await?;
    until(&mut config, |settings| settings.temperature > 0.6).await?;
    println!("{:?} at revision {}", config.get(), config.snapshot().revision);

    // A value of another kind is told, and the last good one stays.
    production.set("temperature", "hot").await?;
    tokio::time::timeout(Duration::from_secs(30), async {
        while config.status().problem.is_none() {
            config.changed().await?;
        }
        Ok::<_, llm_config_client::Error>(())
    })
    .await??;
    println!("told: {}", config.status().problem.ok_or("the problem is gone")?.error);
    assert!(config.get().temperature > 0.6);

    production.delete("temperature").await?;
    until(&mut config, |settings| settings.temperature < 0.3).await?;
    assert!(config.status().problem.is_none());
    println!("followed every change: ok");
    Ok(())
}

async fn until<T>(
    config: &mut Config<T>,
    is_so: impl Fn(&T) -> bool,
) -> Result<(), Box<dyn Error>> {
    let wait = async {
        while !is_so(&config.get()) {
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
