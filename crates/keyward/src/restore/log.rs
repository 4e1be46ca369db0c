//! The log as a file: a header line, an entry a line, and a line with the sum of all before it.
//! A file that was cut or changed is refused as a whole, before anything is taken from it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use keyward_api::audit::hexadecimal;
use keyward_api::revocations::Revocation;
use keyward_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Problem;

/// The first word of every such file.
const FORMAT: &str = "keyward-revocations";
/// The version of the format that this binary writes, and the newest one it reads.
const VERSION: u32 = 1;
/// The longest line, in bytes: many times what the longest entry can be.
const MAX_LINE_BYTES: u64 = 256 * 1024;

/// What the first line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LogHeader {
    format: String,
    version: u32,
    /// Which history the epochs belong to.
    pub(crate) incarnation: u64,
    /// The log holds what changed behind this epoch …
    pub(crate) since: u64,
    /// … up to this one.
    pub(crate) epoch: u64,
    /// When it was written.
    pub(crate) exported_at: Timestamp,
}

impl LogHeader {
    pub(crate) fn new(incarnation: u64, since: u64, epoch: u64, exported_at: Timestamp) -> Self {
        let format = FORMAT.to_owned();
        Self { format, version: VERSION, incarnation, since, epoch, exported_at }
    }
}

/// What the last line says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Footer {
    entries: u64,
    /// Over every byte before this line.
    sha256: String,
}

/// A file that is being written. It has its name when it is whole and on disk.
pub(crate) struct LogWriter {
    path: PathBuf,
    draft: PathBuf,
    file: BufWriter<File>,
    sum: Context,
    entries: u64,
}

impl LogWriter {
    /// Begins a file that only its owner may read. One of this name must not exist.
    pub(crate) fn create(path: &Path, header: &LogHeader) -> Result<Self, Problem> {
        if path.exists() {
            return Err(taken(path));
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.new", std::process::id()));
        let draft = PathBuf::from(draft);
        let mut new = OpenOptions::new();
        let opened = new.write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let file = BufWriter::new(opened.map_err(|error| unwritable(path, &error))?);
        let sum = Context::new(&SHA256);
        let mut writer = Self { path: path.to_owned(), draft, file, sum, entries: 0 };
        writer.line(header)?;
        Ok(writer)
    }

    /// Adds an entry.
    pub(crate) fn entry(&mut self, entry: &Revocation) -> Result<(), Problem> {
        self.entries += 1;
        self.line(entry)
    }

    /// Ends the file and gives it its name; answers how many entries it holds.
    pub(crate) fn finish(mut self) -> Result<u64, Problem> {
        let sha256 = hexadecimal(self.sum.clone().finish().as_ref());
        let entries = self.entries;
        self.line(&Footer { entries, sha256 })?;
        let failed = |error: std::io::Error| unwritable(&self.path, &error);
        self.file.flush().map_err(failed)?;
        self.file.get_ref().sync_all().map_err(failed)?;
        // a link, unlike a rename, never takes the place of a file that is there
        match std::fs::hard_link(&self.draft, &self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(taken(&self.path));
            }
            linked => linked.map_err(failed)?,
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let listed = File::open(folder.unwrap_or(Path::new("."))).and_then(|it| it.sync_all());
        listed.map_err(failed)?;
        Ok(entries)
    }

    fn line<T: Serialize>(&mut self, value: &T) -> Result<(), Problem> {
        let failed = |error: std::io::Error| unwritable(&self.path, &error);
        let mut line = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.sum.update(&line);
        self.file.write_all(&line).map_err(failed)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // linked under its own name by now, or not wanted
        let _ = std::fs::remove_file(&self.draft);
    }
}

fn taken(path: &Path) -> Problem {
    Problem::new(format!("{} exists already", path.display()), "choose another name")
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    let text = format!("{} cannot be written: {error}", path.display());
    Problem::new(text, "name a new file in a folder that this user may write to")
}

/// A whole and unchanged file.
pub(crate) struct LogReader {
    path: PathBuf,
    file: BufReader<File>,
    header: LogHeader,
    left: u64,
}

impl LogReader {
    /// Reads all of it once and compares the sum.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let opened = File::open(path).map_err(|error| unusable(path, &error.to_string()))?;
        let mut file = BufReader::new(opened);
        let first = read_line(path, &mut file)?;
        let header = header(path, &first)?;
        let mut sum = Context::new(&SHA256);
        sum.update(&first);
        let mut lines = 0;
        let mut line = read_line(path, &mut file)?;
        loop {
            let next = read_line(path, &mut file)?;
            if next.is_empty() {
                break;
            }
            sum.update(&line);
            lines += 1;
            line = next;
        }
        let footer: Footer = serde_json::from_slice(&line)
            .map_err(|_| unusable(path, "its last line is not a sum: the file was cut"))?;
        let computed = hexadecimal(sum.finish().as_ref());
        if footer.entries != lines || footer.sha256 != computed {
            return Err(unusable(path, "its sum does not fit: the file was changed"));
        }
        let mut reader = Self { path: path.to_owned(), file, header, left: lines };
        reader.file.rewind().map_err(|error| unusable(path, &error.to_string()))?;
        read_line(path, &mut reader.file)?;
        Ok(reader)
    }

    /// What its first line says.
    pub(crate) const fn header(&self) -> &LogHeader {
        &self.header
    }

    /// The next entry; `None` behind the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Revocation>, Problem> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let line = read_line(&self.path, &mut self.file)?;
        let entry = serde_json::from_slice(&line);
        entry.map(Some).map_err(|error| {
            let place = format!("an entry cannot be read ({error})");
            unusable(&self.path, &place)
        })
    }
}

fn header(path: &Path, line: &[u8]) -> Result<LogHeader, Problem> {
    #[derive(Deserialize)]
    struct Kind {
        format: String,
        version: u32,
    }
    let kind: Option<Kind> = serde_json::from_slice(line).ok();
    match kind.filter(|kind| kind.format == FORMAT) {
        None => Err(unusable(path, "it does not begin as a log of revocations does")),
        Some(kind) if kind.version > VERSION => {
            let text = format!("it has version {} of the format", kind.version);
            let text = format!("{} cannot be used: {text}", path.display());
            Err(Problem::new(text, "use the newer binary that wrote it"))
        }
        Some(_) => serde_json::from_slice(line)
            .map_err(|error| unusable(path, &format!("its first line cannot be read ({error})"))),
    }
}

/// A line with its end; empty behind the last one.
fn read_line(path: &Path, file: &mut BufReader<File>) -> Result<Vec<u8>, Problem> {
    let mut line = Vec::new();
    let read = file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
    read.map_err(|error| unusable(path, &error.to_string()))?;
    match line.last() {
        Some(b'\n') | None => Ok(line),
        Some(_) => Err(unusable(path, "a line does not end: the file was cut")),
    }
}

fn unusable(path: &Path, what: &str) -> Problem {
    let text = format!("{} is not a usable log of revocations: {what}", path.display());
    Problem::new(text, "export it again, or restore without it: every key is then suspect")
}
