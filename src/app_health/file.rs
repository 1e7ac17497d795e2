//! A file that the application keeps, and touches, as long as it is well.

use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use super::answer::Failure;
use super::connect::nobody_is_there;
use crate::clock;
use crate::config::Span;
use crate::election::WallTime;

/// Looks at a file, one look at a time: on a file system whose server is gone a look never ends.
#[derive(Debug, Default)]
pub(super) struct Looks {
    looks: JoinSet<io::Result<Metadata>>,
}

impl Looks {
    /// Whether it is there, a regular file, and not older than it may be.
    ///
    /// # Errors
    /// [`Failure::Absent`] only when there is no file.
    pub(super) async fn look(&mut self, path: &Path, max_age: Option<Duration>) -> Result<(), Failure> {
        while self.looks.try_join_next().is_some() {}
        if !self.looks.is_empty() {
            return Err(Failure::Hanging);
        }
        let file = path.to_owned();
        self.looks.spawn_blocking(move || std::fs::metadata(file));
        let looked = self.looks.join_next().await.expect("it was begun just now");
        let metadata = looked.map_err(|error| Failure::Unwell(format!("looking failed: {error}")))?;
        let metadata = metadata.map_err(|error| {
            let text = format!("{}: {error}", path.display());
            if nobody_is_there(&error) { Failure::Absent(text) } else { Failure::Unwell(text) }
        })?;
        if !metadata.is_file() {
            return Err(Failure::Unwell(format!("{} is not a regular file", path.display())));
        }
        let age = metadata.modified().ok().and_then(|modified| age_of(modified, clock::now().wall));
        match (max_age, age) {
            (Some(max_age), Some(age)) if age > max_age => {
                Err(Failure::Unwell(format!("{} was written {} ago", path.display(), Span(age))))
            }
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }
}

/// `None` when it was written in the future: the clock was set back since.
fn age_of(modified: SystemTime, now: WallTime) -> Option<Duration> {
    let modified = modified.duration_since(UNIX_EPOCH).ok()?;
    let now = Duration::from_nanos(u64::try_from(now.unix_nanos()).ok()?);
    now.checked_sub(modified)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_file_is_good_while_it_is_there_regular_and_young() {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("alive");
        let mut looks = Looks::default();
        let second = Duration::from_secs(1);
        assert!(looks.look(&path, None).await.expect_err("it is not there").is_absence());
        assert!(looks.look(&path.join("below"), None).await.expect_err("it is not there").is_absence());

        fs::write(&path, "").expect("it can be written");
        assert_eq!(looks.look(&path, None).await, Ok(()));
        assert_eq!(looks.look(&path, Some(60 * second)).await, Ok(()));
        let file = fs::File::open(&path).expect("it is there");
        let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        file.set_modified(long_ago).expect("its time can be set");
        let old = looks.look(&path, Some(60 * second)).await.expect_err("it is old");
        assert!(!old.is_absence() && old.to_string().contains(" was written "), "{old}");
        assert_eq!(looks.look(&path, None).await, Ok(()), "without a limit age does not count");

        let not_regular = looks.look(folder.path(), None).await.expect_err("a folder");
        assert!(!not_regular.is_absence(), "{not_regular}");
    }

    #[test]
    fn a_file_from_the_future_has_no_age() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let now = WallTime::from_unix_nanos(10_000_000_000);
        assert_eq!(age_of(at(4), now), Some(Duration::from_secs(6)));
        assert_eq!(age_of(at(11), now), None);
    }
}
