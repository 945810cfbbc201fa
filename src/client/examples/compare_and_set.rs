//! Eight writers count to forty in one entry, none of them losing another's count; then two entries move together.
//!
//! Run it with LLM_CONFIG_ENDPOINTS (default 127.0.0.1:50051), LLM_CONFIG_TOKEN, and a namespace as the argument.

use std::error::Error;

use llm_config_client::{Client, Namespace};

const WRITERS: u32 = 8;
const EACH: u32 = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = client()?;
    let app = client.namespace(namespace("examples/compare-and-set"));
    app.set("counter", &0).await?;

    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let app = app.clone();
        writers.spawn(async move {
            for _ in 0..EACH {
                increment(&app).await?;
            }
            Ok::<_, llm_config_client::Error>(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let counter = app.get::<u32>("counter").linearizable().await?.ok_or("no counter")?;
    assert_eq!(counter.value, WRITERS * EACH, "a count was lost or made twice");

    let step = |version| {
        let transaction = client.transaction().when(app.key("counter").version_is(version));
        let transaction = transaction.then(app.key("counter").set(&0));
        transaction
            .then(app.key("last_count").set(&counter.value))
            .otherwise(app.key("counter").get())
    };
    assert!(step(counter.version).await?.succeeded);
    let late = step(counter.version).await?;
    let now = late.value::<u32>(0)?.ok_or("no counter")?;
    assert!(!late.succeeded && now.value == 0 && now.version == counter.version + 1);
    println!("counted to {}, and moved it once: ok", counter.value);
    Ok(())
}

/// Reads, and writes only over what was read; again when somebody was faster.
async fn increment(app: &Namespace) -> Result<(), llm_config_client::Error> {
    loop {
        let now = app.get::<u32>("counter").linearizable().await?;
        let (value, version) = now.map_or((0, 0), |now| (now.value, now.version));
        match app.set("counter", &(value + 1)).expected_version(version).await {
            Err(error) if error.is_version_conflict() => {}
            result => return result.map(|_| ()),
        }
    }
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
