//! The server: HTTP on threads of its own, the engine on the caller's.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::app::App;
use crate::config::Config;
use crate::connection;
use crate::engine::Engine;
use crate::error::ServeError;
use crate::page::Page;
use crate::router::router;
use crate::work;

/// Threads of HTTP. They parse requests and move bytes; the engine needs the rest of the machine.
const THREADS: usize = 2;
/// Interval at which the request to stop is looked for.
const STOP_POLL: Duration = Duration::from_millis(50);

/// A server that has its address and waits for an engine.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    page: Page,
}

impl Server {
    /// Checks the settings and takes the address, so that mistakes are found before a model is loaded.
    ///
    /// # Errors
    /// Where a setting is wrong, the address is taken, or a folder is missing.
    pub fn bind(config: Config) -> Result<Self, ServeError> {
        config.validate()?;
        let page = Page::new(config.page.as_deref(), config.pack.as_deref())?;
        let cannot = |source| ServeError::Bind {
            address: config.address,
            source,
        };
        let listener = TcpListener::bind(config.address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Self {
            config,
            listener,
            address,
            page,
        })
    }

    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` returns true, and ends the accepted calls, or cuts them off after [`Config::grace`].
    ///
    /// The engine runs on this thread, one call at a time. `stop` is called every 50 ms on another one.
    ///
    /// # Errors
    /// Where the system gives no threads.
    pub fn run(
        self,
        engine: &mut impl Engine,
        stop: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), ServeError> {
        let app = Arc::new(App::new(self.config, engine.model())?);
        let router = router(&app, self.page);
        let mut builder = Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(THREADS)
            .thread_name("emu-serve")
            .enable_all()
            .build();
        let runtime = runtime.map_err(ServeError::Runtime)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener).map_err(ServeError::Runtime)?
        };
        let (ended, end) = mpsc::channel();
        let http = app.clone();
        runtime.spawn(async move {
            let stop = async move {
                while !stop() {
                    tokio::time::sleep(STOP_POLL).await;
                }
            };
            connection::serve(http, router, listener, stop).await;
            let _ = ended.send(());
        });
        work::run_all(engine, &app.queue, &app.metrics);
        // The queue ends before the last bytes are sent. Also returns if the task is gone.
        let _ = end.recv();
        runtime.shutdown_background();
        Ok(())
    }
}

/// Serves an engine until `stop` returns true: [`Server::bind`] and [`Server::run`] in one.
///
/// # Errors
/// As [`Server::bind`] and [`Server::run`].
pub fn serve(
    config: Config,
    engine: &mut impl Engine,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<(), ServeError> {
    Server::bind(config)?.run(engine, stop)
}
