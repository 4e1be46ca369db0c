//! Files that hold secrets: who may read them, how large they may be, how they are made.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::problem::Problem;

/// The largest file with secrets that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// The user whose files are mounted for others.
const ROOT: u32 = 0;

/// Who besides its owner may read a file with secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Nobody. A file of root's that this other user was given may be read by its group: service
    /// managers and container platforms mount secrets so.
    Owner,
    /// The group.
    Group,
}

impl Readers {
    const fn forbidden(self, owner: u32, user: u32) -> u32 {
        match self {
            Self::Owner if owner == ROOT && user != ROOT => 0o037,
            Self::Owner => 0o077,
            Self::Group => 0o007,
        }
    }

    fn exceeded(self, file: &Metadata) -> bool {
        file.mode() & self.forbidden(file.uid(), geteuid().as_raw()) != 0
    }
}

/// Whether others than `readers` allows may open the file.
pub(crate) fn is_open(path: &Path, readers: Readers) -> std::io::Result<bool> {
    Ok(readers.exceeded(&std::fs::metadata(path)?))
}

/// The text of a file with secrets; refused when others may read it. `what` names it in the
/// refusal.
pub(crate) fn read(
    path: &Path,
    readers: Readers,
    what: &str,
) -> Result<Zeroizing<String>, Problem> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let text = format!("{what} {shown} cannot be read: {error}");
        Problem::new(text, "name a file that this user may read")
    };
    // the opened file is the one that is checked, whatever happens to the path meanwhile
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if readers.exceeded(&about) {
        let text = format!("{what} {shown} may be read by other users");
        return Err(Problem::new(text, format!("chmod 600 {shown}")));
    }
    if about.len() > MAX_BYTES {
        let text = format!("{what} {shown} is larger than 64 KiB");
        return Err(Problem::new(text, "name the file with the secret alone"));
    }
    let capacity = usize::try_from(about.len()).unwrap_or_default() + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// The one secret in a file, without the line end that editors leave.
pub(crate) fn read_line(path: &Path, what: &str) -> Result<Zeroizing<String>, Problem> {
    let text = read(path, Readers::Group, what)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains('\n') {
        let text = format!("{what} {} must hold one line, the secret", path.display());
        return Err(Problem::new(text, "write the secret alone into the file"));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Writes a new file that only its owner may read, whole or not at all. `false` when there is one
/// already, which stays as it is.
pub(crate) fn create(path: &Path, text: &str) -> std::io::Result<bool> {
    let draft = draft_of(path)?;
    write_draft(&draft, text)?;
    // a link, unlike a rename, never takes the place of a file that is there
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Ok(()) => File::open(folder_of(path))?.sync_all().map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file that only its owner may read, in the place of what is there.
pub(crate) fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = draft_of(path)?;
    write_draft(&draft, text)?;
    std::fs::rename(&draft, path)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The name of an unfinished file, in a folder that is there.
fn draft_of(path: &Path) -> std::io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder_of(path))?;
    Ok(path.with_extension(format!("{}.new", std::process::id())))
}

fn write_draft(draft: &Path, text: &str) -> std::io::Result<()> {
    let mut new = OpenOptions::new();
    let mut file = new.write(true).create_new(true).mode(0o600).open(draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_root_mounts_for_somebody_else_may_be_read_by_a_group() {
        let service = 65_532;
        for (owner, user, mode, open) in [
            (service, service, 0o600, false),
            (service, service, 0o640, true),
            (ROOT, service, 0o440, false),
            (ROOT, service, 0o400, false),
            (ROOT, service, 0o444, true),
            (ROOT, service, 0o460, true),
            (ROOT, ROOT, 0o440, true),
        ] {
            let found = mode & Readers::Owner.forbidden(owner, user) != 0;
            assert_eq!(found, open, "{mode:o} of {owner} for {user}");
        }
    }
}
