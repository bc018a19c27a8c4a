use std::collections::BTreeSet;

use chrono::TimeDelta;
use store::{AuditEntry, Store, Token};
use tokio::task::JoinSet;

use crate::support::{Database, at, on_both};

on_both! {
    tokens_are_found_by_their_digest_until_they_are_revoked;
    entries_of_many_processes_are_one_chain;
    a_changed_or_missing_entry_breaks_the_chain;
    entries_cannot_be_changed;
}

fn token(name: &str) -> Token {
    Token {
        name: name.to_owned(),
        role: "viewer".to_owned(),
        created_at: at(0),
        created_by: "admin".to_owned(),
        expires_at: at(10),
        revoked_at: None,
    }
}

fn entry(subject: &str) -> AuditEntry {
    AuditEntry {
        id: 0,
        at: at(0) + TimeDelta::nanoseconds(1_234_567),
        actor: "ada".to_owned(),
        action: "RunService.StartRun".to_owned(),
        subject: subject.to_owned(),
        outcome: "OK".to_owned(),
        digest: Vec::new(),
    }
}

async fn tokens_are_found_by_their_digest_until_they_are_revoked(database: Database) {
    let store = database.open().await;
    assert!(store.create_token(&token("ci"), b"one").await.unwrap());
    assert!(!store.create_token(&token("ci"), b"two").await.unwrap(), "the name is taken");
    assert_eq!(store.token(b"one").await.unwrap(), Some(token("ci")));
    assert_eq!(store.token(b"two").await.unwrap(), None);
    assert!(!store.revoke_token("other", at(1)).await.unwrap());
    assert!(store.revoke_token("ci", at(1)).await.unwrap());
    assert!(store.revoke_token("ci", at(2)).await.unwrap());
    let revoked = Token { revoked_at: Some(at(1)), ..token("ci") };
    assert_eq!(store.tokens().await.unwrap(), [revoked]);
}

async fn entries_of_many_processes_are_one_chain(database: Database) {
    let mut adding = JoinSet::new();
    for process in 0..4 {
        let store = database.open().await;
        adding.spawn(async move {
            for number in 0..10 {
                store.add_to_audit(entry(&format!("{process}.{number}"))).await.unwrap();
            }
        });
    }
    while let Some(added) = adding.join_next().await {
        added.unwrap();
    }
    let store = database.open().await;
    let verified = store.verify_audit().await.unwrap();
    assert_eq!((verified.entries, verified.broken_at), (40, None));
    let entries = store.audit(None, 100).await.unwrap();
    assert_eq!(entries[0].digest, verified.digest);
    let subjects: BTreeSet<&str> = entries.iter().map(|entry| entry.subject.as_str()).collect();
    assert_eq!(subjects.len(), 40);
    let older = store.audit(Some(40), 2).await.unwrap();
    assert_eq!(older.iter().map(|entry| entry.id).collect::<Vec<_>>(), [39, 38]);
}

async fn a_changed_or_missing_entry_breaks_the_chain(database: Database) {
    let store = database.open().await;
    for number in 0..4 {
        store.add_to_audit(entry(&number.to_string())).await.unwrap();
    }
    tamper(&database, "update audit set subject = 'another' where id = 3").await;
    let verified = store.verify_audit().await.unwrap();
    assert_eq!((verified.entries, verified.broken_at), (2, Some(3)));
    tamper(&database, "delete from audit where id = 2").await;
    assert_eq!(store.verify_audit().await.unwrap().broken_at, Some(2));
}

async fn entries_cannot_be_changed(database: Database) {
    let store: Store = database.open().await;
    store.add_to_audit(entry("a")).await.unwrap();
    for sql in ["update audit set actor = 'eve'", "delete from audit"] {
        let refused = database.execute(sql).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
    assert_eq!(store.verify_audit().await.unwrap().entries, 1);
}

/// Does what only the owner of the tables can.
async fn tamper(database: &Database, sql: &'static str) {
    if database.address.starts_with("sqlite") {
        database.execute("drop trigger if exists audit_is_not_changed").await.unwrap();
        database.execute("drop trigger if exists audit_is_not_deleted").await.unwrap();
    } else {
        database.execute("alter table audit disable trigger all").await.unwrap();
    }
    database.execute(sql).await.unwrap();
}
