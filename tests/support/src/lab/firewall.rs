//! Firewall rules of a host. They are on the host itself: what it drops in one direction passes in the other.

use anyhow::Result;

use super::Host;
use crate::tools;

/// Whose packets.
#[derive(Clone, Debug)]
pub enum Peer {
    /// This host's.
    Host(Host),
    /// Everybody's but its own.
    Everybody,
}

/// Which way packets go, seen from the host that has the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To it.
    In,
    /// From it.
    Out,
}

/// What becomes of packets that meet a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are gone, and nobody is told.
    Drop,
    /// The connection is reset (RST) at their sender. TCP only: anything else passes.
    Reset,
}

/// The table with its chains. Adding what is there already changes nothing.
const CHAINS: &str = "\
add table inet lab
add chain inet lab in { type filter hook input priority 0; policy accept; }
add chain inet lab out { type filter hook output priority 0; policy accept; }
";

impl Host {
    /// Blocks packets between this host and another, one way, for open connections and for later ones.
    ///
    /// # Errors
    /// When `nft` cannot be had or fails.
    pub fn block(&self, peer: &Peer, way: Way, verdict: Verdict) -> Result<()> {
        let whose = match (peer, way) {
            (Peer::Host(host), Way::In) => format!("ip saddr {}", host.address()),
            (Peer::Host(host), Way::Out) => format!("ip daddr {}", host.address()),
            (Peer::Everybody, Way::In) => "iifname != \"lo\"".to_owned(),
            (Peer::Everybody, Way::Out) => "oifname != \"lo\"".to_owned(),
        };
        let chain = match way {
            Way::In => "in",
            Way::Out => "out",
        };
        let then = match verdict {
            Verdict::Drop => "drop",
            // Not the resets themselves: the other rule would swallow those that one rule sends.
            Verdict::Reset => "tcp flags & rst != rst reject with tcp reset",
        };
        self.nft(&format!("{CHAINS}add rule inet lab {chain} {whose} {then}\n"))
    }

    /// Blocks packets between this host and another, both ways.
    ///
    /// # Errors
    /// As [`block`](Self::block).
    pub fn cut_off_from(&self, other: &Self, verdict: Verdict) -> Result<()> {
        let other = Peer::Host(other.clone());
        self.block(&other, Way::In, verdict)?;
        self.block(&other, Way::Out, verdict)
    }

    /// Blocks everything that comes to this host or goes out of it.
    ///
    /// # Errors
    /// As [`block`](Self::block).
    pub fn isolate(&self, verdict: Verdict) -> Result<()> {
        self.block(&Peer::Everybody, Way::In, verdict)?;
        self.block(&Peer::Everybody, Way::Out, verdict)
    }

    /// Takes away every rule of this host.
    ///
    /// # Errors
    /// As [`block`](Self::block).
    pub fn open(&self) -> Result<()> {
        self.nft("add table inet lab\ndelete table inet lab\n")
    }

    fn nft(&self, orders: &str) -> Result<()> {
        let mut command = self.command(tools::program("nft")?)?;
        command.args(["-f", "-"]);
        tools::run_command(command, orders)?;
        Ok(())
    }
}
