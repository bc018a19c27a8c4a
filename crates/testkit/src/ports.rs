//! Ports for servers that are started later.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

/// Below the range from which systems choose the ports of outgoing connections: a port of that range
/// may be taken by a connection before its server starts.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;

/// Returns a free port of 127.0.0.1 that this process has not been given before, so it is still
/// free when its server starts, and starts again.
///
/// # Panics
///
/// When no port is free.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    // A random start keeps test processes that run side by side apart.
    let start = RandomState::new().hash_one(std::process::id()) % u64::from(LAST - FIRST);
    let start = FIRST + u16::try_from(start).expect("less than the number of ports");
    (start..LAST)
        .chain(FIRST..start)
        .find(|port| !given.contains(port) && is_free(*port) && given.insert(*port))
        .expect("a port is free")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::free_port;

    #[test]
    fn no_port_is_given_twice() {
        let mut ports: Vec<u16> = (0..200).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 200);
    }
}
