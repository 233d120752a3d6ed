//! A connection that opens again after it is lost. Calls are never retried: each loss is counted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::connection::{Connection, Options, Stream};
use super::method::Method;
use super::status::Status;

/// Pause after a failed attempt to connect, so that a dead server is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// One endpoint.
pub struct Channel {
    address: String,
    options: Options,
    connection: Mutex<Connection>,
    reconnecting: tokio::sync::Mutex<()>,
}

impl Channel {
    /// Connects to `address` (host:port).
    ///
    /// # Errors
    /// Unavailable.
    pub async fn open(address: &str, options: Options) -> Result<Self, Status> {
        let connection = Connection::open(address, options.clone()).await?;
        Ok(Self {
            address: address.into(),
            options,
            connection: Mutex::new(connection),
            reconnecting: tokio::sync::Mutex::new(()),
        })
    }

    /// The endpoint's host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn current(&self) -> Connection {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A live connection.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn connection(&self) -> Result<Connection, Status> {
        let connection = self.current();
        if !connection.is_closed() {
            return Ok(connection);
        }
        let _turn = self.reconnecting.lock().await;
        let connection = self.current();
        if !connection.is_closed() {
            return Ok(connection);
        }
        match Connection::open(&self.address, self.options.clone()).await {
            Ok(connection) => {
                *self.connection.lock().unwrap_or_else(PoisonError::into_inner) =
                    connection.clone();
                Ok(connection)
            }
            Err(status) => {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                Err(status)
            }
        }
    }

    /// One request, one answer.
    ///
    /// # Errors
    /// The status of the failed call.
    pub async fn unary(&self, method: Method, request: &[u8]) -> Result<Bytes, Status> {
        self.connection().await?.unary(method, request).await
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn stream(&self, method: Method) -> Result<Stream, Status> {
        self.connection().await?.stream(method).await
    }
}
