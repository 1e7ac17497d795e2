//! A laboratory network: hosts, each a network namespace, on one bridge; cut by link or by firewall rule.
//!
//! It lives in a network of its own, which the kernel takes down with the last process in it: nothing of it is ever
//! seen outside, and nothing can be left behind. [`inside`] puts a test into one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::tools;

mod firewall;
mod host;
mod inside;

pub use firewall::{Peer, Verdict, Way};
pub use host::Host;
pub use inside::{inside, possible};

/// The bridge, which is also the test's own interface.
const BRIDGE: &str = "lab0";
/// The network's first three bytes. Nobody else is on it.
const NETWORK: [u8; 3] = [10, 42, 0];
/// Addresses end in one byte; 1 is the test's.
const MOST_HOSTS: u8 = 200;

/// The network. There is one in each process that runs [`inside`].
#[derive(Debug)]
pub struct Lab {
    ip: PathBuf,
    hosts: Vec<Host>,
}

impl Lab {
    /// Sets up the bridge.
    ///
    /// # Errors
    /// When this is not inside, or `ip` fails.
    pub fn new() -> Result<Self> {
        ensure!(inside::is_inside(), "a laboratory network is made only in a namespace of its own: see lab::inside");
        let lab = Self { ip: tools::program("ip")?, hosts: Vec::new() };
        let address = Self::address();
        lab.batch(&format!(
            "link set lo up\nlink add {BRIDGE} type bridge\naddr add {address}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
        ))?;
        Ok(lab)
    }

    /// The test's own address in the lab: where a [`Proxy`](crate::Proxy) for hosts listens. Firewalls of hosts take
    /// it for a stranger's.
    #[must_use]
    pub fn address() -> Ipv4Addr {
        let [a, b, c] = NETWORK;
        Ipv4Addr::new(a, b, c, 1)
    }

    /// A free port of [`address`](Self::address): for a proxy's listener.
    #[must_use]
    pub fn any_port() -> SocketAddr {
        (Self::address(), 0).into()
    }

    /// Adds a host to the network. Its processes are started with [`Host::command`].
    ///
    /// # Errors
    /// When the name is taken or too long, or the kernel refuses.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        let number = u8::try_from(self.hosts.len()).ok().filter(|number| *number < MOST_HOSTS);
        let number = number.with_context(|| format!("a lab has at most {MOST_HOSTS} hosts"))?;
        let [a, b, c] = NETWORK;
        let host = Host::new(name, Ipv4Addr::new(a, b, c, number + 2), format!("lab-{number}"), self.ip.clone());
        let (port, address) = (host.port(), host.address());
        self.batch(&format!(
            "netns add {name}\nlink add {port} type veth peer name eth0 netns {name}\n\
             link set {port} master {BRIDGE} up\n"
        ))?;
        host.batch(&format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"))?;
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// All hosts, in the order of their making.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Every link up, every firewall rule gone.
    ///
    /// # Errors
    /// When `ip` or `nft` fails.
    pub fn heal(&self) -> Result<()> {
        self.hosts.iter().try_for_each(|host| {
            host.plug_in()?;
            host.open()
        })
    }

    fn batch(&self, orders: &str) -> Result<()> {
        tools::run(&self.ip, &["-batch", "-"], orders)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// Long enough for a loaded machine; only failing tests take it.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// How long nothing may get through a cut. A shorter time could only make a test pass wrongly.
    const SILENCE: Duration = Duration::from_millis(300);

    /// A connection from one host to another, both ends.
    fn connect(from: &Host, to: &Host) -> Result<(TcpStream, TcpStream)> {
        let listener = to.within(|| TcpListener::bind((to.address(), 0)))??;
        let server = listener.local_addr()?;
        let near = from.within(|| TcpStream::connect_timeout(&server, PATIENCE))??;
        let (far, _) = listener.accept()?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
        }
        Ok((near, far))
    }

    /// Whether a byte gets from one end to the other.
    fn says(from: &mut TcpStream, to: &mut TcpStream, within: Duration) -> std::io::Result<()> {
        to.set_read_timeout(Some(within))?;
        from.write_all(b"x")?;
        to.read_exact(&mut [0])
    }

    fn is_silent(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
        let kind = says(from, to, SILENCE).err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::WouldBlock), "not silent: {kind:?}");
        Ok(())
    }

    fn two_hosts() -> Result<(Lab, Host, Host)> {
        let mut lab = Lab::new()?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        Ok((lab, a, b))
    }

    #[test]
    fn hosts_talk_until_a_link_is_pulled_and_again_when_it_is_back() -> Result<()> {
        inside("lab::tests::hosts_talk_until_a_link_is_pulled_and_again_when_it_is_back", async || {
            let (_lab, a, b) = two_hosts()?;
            let (mut near, mut far) = connect(&a, &b)?;
            says(&mut near, &mut far, PATIENCE)?;
            b.unplug()?;
            is_silent(&mut near, &mut far)?;
            b.plug_in()?;
            // What was lost is sent again.
            far.set_read_timeout(Some(PATIENCE))?;
            far.read_exact(&mut [0])?;
            says(&mut far, &mut near, PATIENCE)?;
            Ok(())
        })
    }

    #[test]
    fn a_rule_drops_one_way_only_and_only_between_two() -> Result<()> {
        inside("lab::tests::a_rule_drops_one_way_only_and_only_between_two", async || {
            let (mut lab, a, b) = two_hosts()?;
            let c = lab.host("c")?;
            let (mut near, mut far) = connect(&a, &b)?;
            let (mut other_near, mut other_far) = connect(&c, &b)?;
            b.block(&Peer::Host(a.clone()), Way::In, Verdict::Drop)?;
            is_silent(&mut near, &mut far)?;
            says(&mut other_near, &mut other_far, PATIENCE)?;
            // What b sends arrives, although a's acknowledgement does not.
            says(&mut far, &mut near, PATIENCE)?;
            b.open()?;
            far.set_read_timeout(Some(PATIENCE))?;
            far.read_exact(&mut [0])?;
            b.block(&Peer::Host(a.clone()), Way::Out, Verdict::Drop)?;
            is_silent(&mut far, &mut near)?;
            Ok(())
        })
    }

    #[test]
    fn an_isolated_host_hears_nobody_and_is_heard_by_nobody_until_the_lab_heals() -> Result<()> {
        inside("lab::tests::an_isolated_host_hears_nobody_and_is_heard_by_nobody_until_the_lab_heals", async || {
            let (lab, a, b) = two_hosts()?;
            let (mut near, mut far) = connect(&a, &b)?;
            b.isolate(Verdict::Drop)?;
            is_silent(&mut near, &mut far)?;
            is_silent(&mut far, &mut near)?;
            // Within the host everything is as it was.
            let (mut inner, mut inner_far) = connect(&b, &b)?;
            says(&mut inner, &mut inner_far, PATIENCE)?;
            lab.heal()?;
            far.set_read_timeout(Some(PATIENCE))?;
            far.read_exact(&mut [0])?;
            Ok(())
        })
    }

    #[test]
    fn a_rejected_connection_is_reset_not_silent() -> Result<()> {
        inside("lab::tests::a_rejected_connection_is_reset_not_silent", async || {
            let (_lab, a, b) = two_hosts()?;
            let (mut near, _far) = connect(&a, &b)?;
            let (mut other_near, mut other_far) = connect(&b, &a)?;
            b.isolate(Verdict::Reset)?;
            near.write_all(b"x")?;
            near.set_read_timeout(Some(PATIENCE))?;
            let kind = near.read(&mut [0]).map_err(|error| error.kind());
            ensure!(kind == Err(ErrorKind::ConnectionReset), "{kind:?}");
            // The one that sends from behind the rule is told as well.
            let kind = says(&mut other_near, &mut other_far, SILENCE).map_err(|error| error.kind());
            ensure!(kind.is_err());
            other_near.set_read_timeout(Some(PATIENCE))?;
            let kind = other_near.read(&mut [0]).map_err(|error| error.kind());
            ensure!(kind == Err(ErrorKind::ConnectionReset), "{kind:?}");
            Ok(())
        })
    }

    #[test]
    fn a_process_on_a_host_sees_the_interfaces_of_that_host_and_no_others() -> Result<()> {
        inside("lab::tests::a_process_on_a_host_sees_the_interfaces_of_that_host_and_no_others", async || {
            let (_lab, a, _b) = two_hosts()?;
            let mut command = a.command("cat")?;
            command.arg("/proc/net/dev");
            let interfaces = tools::run_command(command, "")?;
            ensure!(interfaces.contains("eth0:") && !interfaces.contains(BRIDGE), "{interfaces}");
            Ok(())
        })
    }

    #[test]
    fn a_test_of_a_name_that_is_not_there_fails_instead_of_running_nothing() {
        if !inside::is_inside() {
            let error = inside("lab::tests::no_such_test", async || Ok(())).unwrap_err();
            assert!(format!("{error:#}").contains("no_such_test"), "{error:#}");
        }
    }

    #[test]
    fn outside_there_is_no_lab() {
        if !inside::is_inside() {
            Lab::new().unwrap_err();
        }
    }
}
