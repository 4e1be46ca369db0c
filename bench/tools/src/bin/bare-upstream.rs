//! An upstream that costs next to nothing, so that it is the gateway that is measured.
//!
//! `bare-upstream LISTEN ANSWER-FILE` sends the bytes in the file, a whole answer of HTTP/1.1, to
//! each `GET` without a body, one request at a time on a connection. One thread, three system calls
//! a request at most.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, bail, ensure};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsRawFd, OwnedFd};

/// The most bytes of one request.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Events taken from the kernel at once.
const EVENTS: usize = 256;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, file] = arguments.as_slice() else {
        bail!("usage: bare-upstream LISTEN ANSWER-FILE");
    };
    let answer = std::fs::read(file).context("the file of the answer")?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, name_of(&listener), EventFlags::IN)?;
    println!("http://{}", listener.local_addr()?);
    let own = name_of(&listener).u64();
    let mut connections = HashMap::new();
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let name = event.data.u64();
            if name == own {
                accept(&listener, &poll, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(&name)
                && !connection.serve(&answer)?
            {
                // to close it takes it out of the poll
                connections.remove(&name);
            }
        }
    }
}

/// What the poll calls a socket.
fn name_of(socket: &impl AsRawFd) -> EventData {
    EventData::new_u64(u64::from(socket.as_raw_fd().unsigned_abs()))
}

fn accept(
    listener: &TcpListener,
    poll: &OwnedFd,
    connections: &mut HashMap<u64, Connection>,
) -> anyhow::Result<()> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let name = name_of(&stream);
    epoll::add(poll, &stream, name, EventFlags::IN)?;
    connections.insert(name.u64(), Connection { stream, head: vec![0; MAX_HEAD_BYTES], filled: 0 });
    Ok(())
}

struct Connection {
    stream: TcpStream,
    head: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Reads what there is, and answers when it is a whole request; false when the other side left.
    fn serve(&mut self, answer: &[u8]) -> anyhow::Result<bool> {
        let room = self.head.get_mut(self.filled..).unwrap_or_default();
        match self.stream.read(room) {
            Ok(0) => return Ok(false),
            Ok(bytes) => self.filled += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(_) => return Ok(false),
        }
        let head = self.head.get(..self.filled).unwrap_or_default();
        if head.ends_with(b"\r\n\r\n") {
            ensure!(head.starts_with(b"GET "), "only GET is answered");
            self.filled = 0;
            // one answer at a time is less than a socket's buffer
            return Ok(self.stream.write_all(answer).is_ok());
        }
        ensure!(self.filled < MAX_HEAD_BYTES, "a request is longer than {MAX_HEAD_BYTES} bytes");
        Ok(true)
    }
}
