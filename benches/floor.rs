//! Servers without anything behind the protocol, as processes of their own, so that what they cost is measured as that of
//! the others is. They end with their standard input: when the program that started them is gone, so are they.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::routing::any;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::wire::floor::Nothing;
use crate::wire::floor::floor_server::{Floor, FloorServer};

struct Empty;

#[tonic::async_trait]
impl Floor for Empty {
    async fn echo(&self, _: Request<Nothing>) -> Result<Response<Nothing>, Status> {
        Ok(Response::new(Nothing {}))
    }
}

/// Serves empty calls at one address and empty pages at the other.
///
/// # Errors
/// When an address cannot be used.
pub async fn listen(grpc: SocketAddr, http: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(http).await.with_context(|| format!("cannot use {http}"))?;
    let pages = axum::serve(listener, Router::new().fallback(any(|| async {})));
    let calls =
        tonic::transport::Server::builder().add_service(FloorServer::new(Empty)).serve(grpc);
    tokio::select! {
        done = pages => done.context("the empty pages ended"),
        done = calls => done.with_context(|| format!("cannot use {grpc}")),
    }
}

/// The same until the standard input ends.
///
/// # Errors
/// When an address cannot be used.
pub async fn serve(grpc: SocketAddr, http: SocketAddr) -> anyhow::Result<()> {
    let (abandoned, end) = tokio::sync::oneshot::channel();
    // A thread that the program's end does not wait for.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = abandoned.send(());
    });
    tokio::select! {
        done = listen(grpc, http) => done,
        _ = end => Ok(()),
    }
}
