//! CPUs for the threads of a pool.
//!
//! A thread that stays on its CPU keeps its caches, and its memory near. But a thread that must
//! stay where another program computes has to wait for it, so that threads are pinned only if there
//! is one for every core that this process may use; with fewer, the system does better.

/// The CPUs for `threads` threads, one each, or nothing if they are better left to the system.
pub(crate) fn cpus(threads: usize) -> Option<Vec<usize>> {
    let allowed = system::allowed()?;
    choose(threads, &allowed, system::first_of_core)
}

/// Pins the calling thread, if the system lets it.
pub(crate) fn pin(cpu: usize) {
    system::pin(cpu);
}

/// The first CPU of every core, then the others, if there are threads for all cores and no more
/// than CPUs.
fn choose(
    threads: usize,
    allowed: &[usize],
    first_of_core: impl Fn(usize) -> Option<usize>,
) -> Option<Vec<usize>> {
    let mut cores: Vec<usize> = Vec::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for &cpu in allowed {
        let core = first_of_core(cpu)?;
        if cores.contains(&core) {
            rest.push(cpu);
        } else {
            cores.push(core);
            first.push(cpu);
        }
    }
    let all = threads >= first.len() && threads <= allowed.len() && threads > 1;
    all.then(|| {
        first.extend(rest);
        first.truncate(threads);
        first
    })
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;

    /// The CPUs that this thread may use; none if the system does not say.
    pub(super) fn allowed() -> Option<Vec<usize>> {
        // SAFETY: a set of CPUs is plain bits, for which zero is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the call fills a set of the size that it is told.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
        // SAFETY: the macro reads bits of the set, below the number that it has.
        let is_set = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
        (result == 0).then(|| (0..size_of_val(&set) * 8).filter(is_set).collect())
    }

    /// The lowest CPU of the core that has this one, from `thread_siblings_list` ("0,64", "0-1").
    pub(super) fn first_of_core(cpu: usize) -> Option<usize> {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let list = fs::read_to_string(path).ok()?;
        list.split([',', '-']).next()?.trim().parse().ok()
    }

    pub(super) fn pin(cpu: usize) {
        // SAFETY: a set of CPUs is plain bits, for which zero is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the macro writes a bit of the set; `cpu` came from one. The call reads the set,
        // and changes where this thread runs, nothing else; if it fails, the thread stays unpinned.
        unsafe {
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn allowed() -> Option<Vec<usize>> {
        None
    }

    pub(super) fn first_of_core(_cpu: usize) -> Option<usize> {
        None
    }

    pub(super) fn pin(_cpu: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_get_a_core_each_before_they_share_one() {
        let cores = |cpu: usize| Some(cpu % 4); // CPUs 0 and 4 are one core
        let all = [0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(choose(4, &all, cores), Some(vec![0, 1, 2, 3]));
        assert_eq!(choose(6, &all, cores), Some(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(choose(2, &[4, 1, 5, 0], cores), Some(vec![4, 1]));
    }

    #[test]
    fn threads_are_left_to_the_system_where_pinning_might_harm() {
        let cores = |cpu: usize| Some(cpu);
        assert_eq!(choose(2, &[0, 1, 2], cores), None, "others may compute on the rest");
        assert_eq!(choose(4, &[0, 1, 2], cores), None, "two would share a CPU");
        assert_eq!(choose(1, &[0], cores), None, "one thread is the caller's");
        assert_eq!(choose(2, &[0, 1], |_| None), None, "an unknown topology");
    }
}
