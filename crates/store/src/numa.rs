//! Memory policy of machines with several NUMA nodes. A page is allocated on the node of the thread
//! that touches it first; a model read by one thread would be on one node, whose channels limit all
//! cores.
//!
//! The unsafe code is two system calls that the standard library does not have.

/// Runs `work` with memory interleaved over `nodes` (those with memory): what this thread allocates
/// meanwhile, and what threads that it starts meanwhile ever allocate, including pages of files
/// that they read into the page cache. Afterwards this thread has its policy of before. Where the
/// system refuses, `work` runs without.
pub fn interleaved<R>(nodes: &[usize], work: impl FnOnce() -> R) -> R {
    let _restored_when_dropped = policy::Interleaved::set(nodes).ok();
    work()
}

#[cfg(target_os = "linux")]
mod policy {
    use std::io;

    const BITS: usize = usize::BITS as usize;
    /// Words of the largest set of nodes that Linux knows: 1024.
    const WORDS: usize = 1024 / BITS;

    /// The policy of this thread before it was interleaved.
    pub(super) struct Interleaved {
        mode: libc::c_int,
        nodes: [usize; WORDS],
    }

    impl Interleaved {
        pub(super) fn set(nodes: &[usize]) -> io::Result<Self> {
            let mut before = Self { mode: 0, nodes: [0; WORDS] };
            // SAFETY: both pointers are valid for the call, which writes no more than `WORDS`
            // words.
            let known = unsafe {
                let (mode, mask) = (&raw mut before.mode, before.nodes.as_mut_ptr());
                libc::syscall(libc::SYS_get_mempolicy, mode, mask, WORDS * BITS, 0, 0)
            };
            if known != 0 {
                return Err(io::Error::last_os_error());
            }
            let mut mask = [0; WORDS];
            for &node in nodes {
                let word = mask.get_mut(node / BITS).ok_or(io::ErrorKind::InvalidInput)?;
                *word |= 1 << (node % BITS);
            }
            set(libc::MPOL_INTERLEAVE, &mask)?;
            Ok(before)
        }
    }

    impl Drop for Interleaved {
        fn drop(&mut self) {
            let _ = set(self.mode, &self.nodes);
        }
    }

    fn set(mode: libc::c_int, nodes: &[usize; WORDS]) -> io::Result<()> {
        // A policy without nodes has no mask. The kernel uses one bit less than `maxnode`
        // (set_mempolicy(2)).
        let is_empty = nodes.iter().all(|&word| word == 0);
        let (mask, bits) = match is_empty {
            true => (std::ptr::null(), 0),
            false => (nodes.as_ptr(), WORDS * BITS),
        };
        // SAFETY: the mask is read only, and has as many words as `bits` says.
        let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(not(target_os = "linux"))]
mod policy {
    /// Not available on this system.
    pub(super) struct Interleaved;

    impl Interleaved {
        pub(super) fn set(_: &[usize]) -> std::io::Result<Self> {
            Err(std::io::ErrorKind::Unsupported.into())
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The policy that `/proc` reports for memory that this thread allocates now.
    fn policy() -> Option<String> {
        let memory = vec![1u8; 64 << 20]; // a mapping of its own
        let maps = std::fs::read_to_string("/proc/thread-self/numa_maps").ok()?;
        let start = format!("{:x}", memory.as_ptr() as usize & !0xFFF);
        let line = maps.lines().find(|line| line.contains(&start))?;
        line.split(' ').nth(1).map(str::to_owned)
    }

    #[test]
    fn memory_is_interleaved_meanwhile_and_in_threads_that_were_started_then() {
        let (send, wait) = std::sync::mpsc::channel::<()>();
        let (inside, thread) = interleaved(&[0], || {
            let thread = std::thread::spawn(move || {
                wait.recv().unwrap();
                policy()
            });
            (policy(), thread)
        });
        let after = policy();
        send.send(()).unwrap();
        let in_thread = thread.join().unwrap();
        // Containers may forbid it, or a kernel know no nodes.
        match inside.as_deref() {
            Some(policy) if policy.starts_with("interleave") => {
                assert!(in_thread.unwrap().starts_with("interleave"));
                assert!(!after.unwrap().starts_with("interleave"), "this thread is as before");
            }
            other => println!("skipped: this system does not interleave ({other:?})"),
        }
        assert_eq!(interleaved(&[usize::MAX], || 7), 7, "no such node");
    }
}
