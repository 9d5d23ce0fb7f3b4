//! What most tests begin with: a place, a directory, a server, and a connection that shows that rano is looking.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::actor::{Actor, Service, Transport};
use super::database::Database;
use super::namespace::{Place, User};
use super::rano::{Launch, Rano, default_database};
use super::stage;

/// Polls often, so that a test need not wait.
pub const FAST: [&str; 4] = ["--interval-ms", "20", "--stats-interval-ms", "0"];

pub struct Scene {
    pub place: Place,
    pub server: Actor,
    /// An answering TCP server on 127.0.0.1.
    pub tcp: SocketAddr,
    /// An agent of its own provider, google, whose connections tell how far rano has come.
    marker: Actor,
    directory: TempDir,
}

impl Scene {
    pub fn new(user: User) -> Result<Self> {
        Self::at(Place::new(user)?)
    }

    pub fn at(place: Place) -> Result<Self> {
        let mut server = Actor::start(&place, "server")?;
        let tcp = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
        let marker = Actor::start(&place, "gemini")?;
        Ok(Self { server, tcp, marker, directory: stage::directory(&place)?, place })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn agent(&self, name: &str) -> Result<Actor> {
        Actor::start(&self.place, name)
    }

    pub fn launch(&self) -> Result<Launch> {
        Launch::new(&self.place, self.directory())
    }

    /// rano with `arguments`, polling fast, after its first poll. Its events must go to standard output.
    pub fn observe(&mut self, arguments: &[&str]) -> Result<Rano> {
        self.observe_every(20, arguments)
    }

    pub fn observe_every(&mut self, interval_ms: u32, arguments: &[&str]) -> Result<Rano> {
        let (_, older) = self.marker.connect(Transport::Tcp, self.tcp)?;
        let interval = interval_ms.to_string();
        let fixed = ["--interval-ms", &interval, "--stats-interval-ms", "0"];
        let rano = self.launch()?.args(fixed).args(arguments).start()?;
        rano.wait_for_event("connect", older).context("wait for the first poll")?;
        Ok(rano)
    }

    /// Returns after rano has polled everything that is open now.
    pub fn let_it_look(&mut self, rano: &Rano) -> Result<()> {
        // The poll that finds the first marker may have passed other sockets' places before they were there. The
        // one that finds the second began later.
        self.show_marker(rano)?;
        self.show_marker(rano)
    }

    fn show_marker(&mut self, rano: &Rano) -> Result<()> {
        let (_, tuple) = self.marker.connect(Transport::Tcp, self.tcp)?;
        rano.wait_for_event("connect", tuple).context("wait for rano to look")?;
        Ok(())
    }

    /// What rano wrote without `--sqlite`.
    pub fn database(&self) -> Result<Database> {
        Database::open(&default_database(self.directory()))
    }
}
