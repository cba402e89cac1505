//! What the operating system tells of a process: its memory and its open files. Linux only, like the project.

use anyhow::Context;
use std::collections::BTreeSet;
use std::fs;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was resident.
    pub peak: u64,
}

/// The memory of a process.
///
/// # Errors
/// There is no such process.
pub fn memory(process: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let of = |name: &str| -> anyhow::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    };
    Ok(Memory { resident: of("VmRSS:")?, peak: of("VmHWM:")? })
}

/// Open files of a process, by kind: connections to its own `port`, other sockets, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenFiles {
    /// Connections from callers.
    pub callers: usize,
    /// Other sockets: listeners, and connections that it made, which rest for a while.
    pub sockets: usize,
    /// Files, pipes and the rest.
    pub files: usize,
}

/// The open files of a process that listens at `port`.
///
/// # Errors
/// There is no such process.
pub fn open_files(process: u32, port: u16) -> anyhow::Result<OpenFiles> {
    let sockets = established(process, port)?;
    let mut open = OpenFiles::default();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        // Closed between the list and the look.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy();
        match target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            Some(inode) if sockets.contains(inode) => open.callers += 1,
            Some(_) => open.sockets += 1,
            None => open.files += 1,
        }
    }
    Ok(open)
}

/// Connections to `port` on this machine, by inode, whatever their state but listening.
fn established(process: u32, port: u16) -> anyhow::Result<BTreeSet<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/net/tcp"))?;
    let local = format!(":{port:04X}");
    let mut found = BTreeSet::new();
    for line in text.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if let [_, address, _, state, _, _, _, _, _, inode, ..] = columns.as_slice()
            && address.ends_with(&local)
            && *state != "0A"
        {
            found.insert((*inode).to_owned());
        }
    }
    Ok(found)
}
