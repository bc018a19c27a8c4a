-- Who may do what, and who did what.

create table tokens (
    name text not null constraint tokens_pkey primary key,
    role text not null,
    -- SHA-256 of what its bearer sends.
    digest blob not null constraint tokens_digest_key unique,
    created_at timestamp not null,
    created_by text not null,
    expires_at timestamp not null,
    revoked_at timestamp
);

create table audit (
    id integer not null constraint audit_pkey primary key,
    at timestamp not null,
    actor text not null,
    action text not null,
    subject text not null,
    outcome text not null,
    -- SHA-256 over the digest of the entry before and this entry.
    digest blob not null
);

create trigger audit_is_not_changed before update on audit
begin
    select raise(abort, 'the audit is append-only');
end;

create trigger audit_is_not_deleted before delete on audit
begin
    select raise(abort, 'the audit is append-only');
end;
