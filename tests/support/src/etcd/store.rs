//! What a test does with the data in a cluster, beside the program under test.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions};
use tokio::time::{Instant, sleep, timeout};

use super::{EtcdCluster, START_DEADLINE};

/// How long a connection to a member may take.
const CONNECT_MOST: Duration = Duration::from_secs(1);
/// How long a request may take. etcd itself gives up on most after 5 s and two election timeouts; to compact or defragment
/// on a slow disk takes longer, and what a frozen member would never answer ends here.
const REQUEST_MOST: Duration = Duration::from_secs(30);

impl EtcdCluster {
    /// The member that leads the cluster, if the running ones agree on one.
    ///
    /// # Errors
    /// When no running member answers.
    pub async fn leader(&self) -> Result<Option<usize>> {
        let mut leaders = Vec::new();
        let mut ids = Vec::new();
        for member in 0..self.members.len() {
            if self.members[member].process.is_none() {
                continue;
            }
            let status = async { anyhow::Ok(self.client(member).await?.status().await?) };
            if let Ok(Ok(status)) = timeout(Duration::from_secs(1), status).await {
                ids.push((member, status.header().map(etcd_client::ResponseHeader::member_id)));
                leaders.push(status.leader());
            }
        }
        ensure!(!leaders.is_empty(), "no member answers");
        if leaders.iter().any(|leader| *leader != leaders[0]) {
            return Ok(None);
        }
        Ok(ids.into_iter().find(|(_, id)| *id == Some(leaders[0])).map(|(member, _)| member))
    }

    /// Waits until the running members agree on a leader.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn wait_for_leader(&self) -> Result<usize> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(Some(member)) = self.leader().await {
                return Ok(member);
            }
            ensure!(Instant::now() < deadline, "the members agree on no leader");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether this etcd has #15247: a leader that was replaced while its disk stalled renews and revokes leases as if it
    /// still led. Fixed in 3.4.31 and 3.5.13.
    ///
    /// # Errors
    /// When no member says its version.
    pub async fn trusts_a_stalled_leader(&self) -> Result<bool> {
        let version = self.ask(async |mut client| Ok(client.status().await?.version().to_owned())).await?;
        let mut numbers = version.split('.').skip(1).map(str::parse::<u32>);
        let (Some(Ok(minor)), Some(Ok(patch))) = (numbers.next(), numbers.next()) else { bail!("version {version}?") };
        Ok(match minor {
            ..=4 => patch < 31,
            5 => patch < 13,
            6.. => false,
        })
    }

    /// A client of one member, as root once authentication is enabled. Its requests fail after half a minute.
    ///
    /// # Errors
    /// When it cannot connect or authenticate.
    pub async fn client(&self, member: usize) -> Result<Client> {
        let mut options = ConnectOptions::new().with_connect_timeout(CONNECT_MOST).with_timeout(REQUEST_MOST);
        if let Some(authority) = &self.authority {
            let identity = Identity::from_pem(fs::read(self.client_cert_file())?, fs::read(self.client_key_file())?);
            options = options.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(&authority.cert_pem))
                    .identity(identity)
                    .domain_name("localhost"),
            );
        }
        if let Some((user, password)) = &self.root {
            options = options.with_user(user, password);
        }
        Ok(Client::connect([self.endpoint(member)], Some(options)).await?)
    }

    /// A client of the first member that answers a linearizable read: not of one that is frozen or cut off, nor of a
    /// learner. A write through it is sent once, so that one that fails leaves nothing behind that a second has done.
    ///
    /// # Errors
    /// When none does, with what the last one said.
    pub async fn any_client(&self) -> Result<Client> {
        self.ask(async |mut client| {
            client.get("ready", None).await?;
            Ok(client)
        })
        .await
    }

    /// Puts a key, attached to `lease` when that is not 0. Returns the store's revision.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn put(&self, key: &str, value: &str, lease: i64) -> Result<i64> {
        let options = etcd_client::PutOptions::new().with_lease(lease);
        let response = self.any_client().await?.put(key, value, Some(options)).await?;
        revision(response.header())
    }

    /// A key's value.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        Ok(self.get_kv(key).await?.map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
    }

    /// A key with its revisions and lease.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn get_kv(&self, key: &str) -> Result<Option<etcd_client::KeyValue>> {
        Ok(self.any_client().await?.get(key, None).await?.take_kvs().into_iter().next())
    }

    /// Deletes a key. Returns the store's revision.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn delete(&self, key: &str) -> Result<i64> {
        revision(self.any_client().await?.delete(key, None).await?.header())
    }

    /// Revokes a lease.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn revoke(&self, lease: i64) -> Result<()> {
        self.any_client().await?.lease_revoke(lease).await?;
        Ok(())
    }

    /// Forgets every revision before this one.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn compact(&self, revision: i64) -> Result<()> {
        let options = etcd_client::CompactionOptions::new().with_physical();
        self.any_client().await?.compact(revision, Some(options)).await?;
        Ok(())
    }

    /// The store's revision now.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn revision(&self) -> Result<i64> {
        revision(self.any_client().await?.get("revision", None).await?.header())
    }

    /// Switches authentication on, with a root user that this cluster's own clients use from now on.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn enable_auth(&mut self) -> Result<()> {
        let root = ("root".to_owned(), "root-password".to_owned());
        let mut client = self.any_client().await?;
        client.user_add(root.0.as_str(), root.1.as_str(), None).await?;
        client.role_add("root").await?;
        client.user_grant_role("root", "root").await?;
        client.auth_enable().await?;
        self.root = Some(root);
        Ok(())
    }

    /// Adds a user that may read and write what starts with `prefix`.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn add_user(&self, user: &str, password: &str, prefix: &str) -> Result<()> {
        let mut client = self.any_client().await?;
        client.user_add(user, password, None).await?;
        client.role_add(user).await?;
        let permission = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        client.role_grant_permission(user, permission).await?;
        client.user_grant_role(user, user).await?;
        Ok(())
    }

    /// Sets a user's password, and makes etcd forget the user's tokens.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn change_password(&self, user: &str, password: &str) -> Result<()> {
        self.any_client().await?.user_change_password(user, password).await?;
        Ok(())
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Result<i64> {
    Ok(header.context("an answer without a header")?.revision())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdOptions;

    #[tokio::test]
    async fn what_a_test_does_is_done_although_the_first_member_is_frozen() -> Result<()> {
        let etcd = EtcdCluster::start(EtcdOptions { members: 3, ..EtcdOptions::default() }).await?;
        etcd.move_leader(1).await?;
        etcd.freeze(0)?;
        let deeds = async {
            let put = etcd.put("/key", "value", 0).await?;
            assert_eq!(etcd.get("/key").await?.as_deref(), Some("value"));
            assert_eq!(etcd.delete("/key").await?, put + 1, "each is done once");
            anyhow::Ok(())
        };
        // Each passes the frozen member over, which takes it 3 s.
        timeout(START_DEADLINE, deeds).await.context("it waits for the frozen member")??;
        etcd.thaw(0)
    }
}
