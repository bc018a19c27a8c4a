-- Who may do what, and who did what.

create table tokens (
    name text not null constraint tokens_pkey primary key,
    role text not null,
    -- SHA-256 of what its bearer sends.
    digest bytea not null constraint tokens_digest_key unique,
    created_at timestamptz not null,
    created_by text not null,
    expires_at timestamptz not null,
    revoked_at timestamptz
);

create table audit (
    id bigint not null constraint audit_pkey primary key,
    at timestamptz not null,
    actor text not null,
    action text not null,
    subject text not null,
    outcome text not null,
    -- SHA-256 over the digest of the entry before and this entry.
    digest bytea not null
);

create function audit_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is append-only';
end
$$;
create trigger audit_is_append_only before update or delete or truncate on audit
    for each statement execute function audit_is_append_only();
