//! Memory policy of machines with several NUMA nodes. A page is allocated on the node of the thread that
//! touches it first; a model read by one thread would be on one node, whose channels limit all cores.
//!
//! The unsafe code is one system call that the standard library does not have.

use std::io;

/// From now on, interleaves the memory that this thread and threads it starts allocate over `nodes`
/// (those with memory), including pages of files that they read into the page cache.
///
/// # Errors
/// If the system refuses, or cannot do this.
#[cfg(target_os = "linux")]
pub fn interleave(nodes: &[usize]) -> io::Result<()> {
    const BITS: usize = usize::BITS as usize;
    let words = nodes.iter().max().map_or(0, |most| most / BITS + 1);
    let mut mask = vec![0usize; words];
    nodes.iter().for_each(|node| mask[node / BITS] |= 1 << (node % BITS));
    // The kernel uses one bit less than `maxnode`: set_mempolicy(2).
    let bits = words * BITS + 1;
    // SAFETY: the mask is read only, and has as many words as the number of its bits says.
    let done = unsafe {
        libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_INTERLEAVE, mask.as_ptr(), bits)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Not available on this system.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn interleave(_nodes: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The policy that `/proc` reports for memory that this thread allocates afterwards.
    #[test]
    fn memory_taken_afterwards_is_interleaved() {
        let told = std::thread::spawn(|| {
            match interleave(&[0]) {
                // Containers may forbid it, or a kernel know no nodes.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return None,
                done => done.expect("node 0 has memory"),
            }
            let memory = vec![1u8; 64 << 20]; // a mapping of its own
            let maps = std::fs::read_to_string("/proc/thread-self/numa_maps").ok()?;
            let start = format!("{:x}", memory.as_ptr() as usize & !0xFFF);
            maps.lines().find(|line| line.contains(&start)).map(str::to_owned)
        });
        let told = told.join().expect("the thread ends");
        match told {
            Some(line) => assert!(line.contains("interleave"), "{line}"),
            None => println!("skipped: this system has no NUMA policies, or hides them"),
        }
        let beyond = interleave(&[4095]).expect_err("there is no such node");
        assert_ne!(beyond.kind(), io::ErrorKind::Unsupported);
    }
}
