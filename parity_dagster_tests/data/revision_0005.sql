-- The tables of 0.1.0 (revision 0005) with two complete pairs, one with failed records, one queued and one whose importer was stopped
-- after its second page; made by pg_dump. The hosts of SampleNetwork(hosts=2, seed=5) stand in as pds-1.sample and pds-2.sample.
CREATE FUNCTION parity_timestamp(given text) RETURNS timestamp with time zone
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
DECLARE
    moment timestamptz;
BEGIN
    IF given !~ ('^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]'
        '(?:\.[0-9]{1,20})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])$') OR left(given, 4) = '0000' THEN
        RETURN NULL;
    END IF;
    IF substr(given, 9, 2) > '28' AND substr(given, 9, 2)::int > extract(day FROM
        make_date(left(given, 4)::int, substr(given, 6, 2)::int, 1) + interval '1 month' - interval '1 day') THEN
        RETURN NULL;
    END IF;
    moment := given::timestamptz;
    -- An offset can lead out of the years 1 to 9999, which is as far as most languages' dates go.
    IF moment < '0001-01-01T00:00:00Z' OR moment >= '10000-01-01T00:00:00Z' THEN
        RETURN NULL;
    END IF;
    RETURN moment;
END
$_$;
COMMENT ON FUNCTION parity_timestamp(given text) IS 'A datetime of the AT Protocol as a time; null if it is malformed';
CREATE TABLE atproto_records (
    did text NOT NULL COLLATE pg_catalog."C",
    collection text NOT NULL COLLATE pg_catalog."C",
    rkey text NOT NULL COLLATE pg_catalog."C",
    cid text COLLATE pg_catalog."C",
    value jsonb NOT NULL,
    rev text COLLATE pg_catalog."C",
    active boolean DEFAULT true NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    uri text GENERATED ALWAYS AS (((((('at://'::text || did) || '/'::text) || collection) || '/'::text) || rkey)) STORED COLLATE pg_catalog."C"
);
COMMENT ON TABLE atproto_records IS 'Records as their authors'' PDSes list them (com.atproto.repo.listRecords)';
COMMENT ON COLUMN atproto_records.did IS 'Account, from the request, never from the answer';
COMMENT ON COLUMN atproto_records.collection IS 'NSID of the collection, from the request';
COMMENT ON COLUMN atproto_records.rkey IS 'Record key';
COMMENT ON COLUMN atproto_records.cid IS 'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN atproto_records.value IS 'The record';
COMMENT ON COLUMN atproto_records.rev IS 'Revision of the repository known when this version was observed';
COMMENT ON COLUMN atproto_records.active IS 'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN atproto_records.first_seen_at IS 'When the record was stored first';
COMMENT ON COLUMN atproto_records.updated_at IS 'When this version was stored; an unchanged record is not rewritten';
COMMENT ON COLUMN atproto_records.uri IS 'at://did/collection/rkey';
CREATE VIEW follows AS
 SELECT atproto_records.did,
    atproto_records.rkey,
    atproto_records.uri,
    atproto_records.cid,
    parity_timestamp((atproto_records.value ->> 'createdAt'::text)) AS created_at,
        CASE
            WHEN (jsonb_typeof((atproto_records.value -> 'subject'::text)) = 'string'::text) THEN (atproto_records.value ->> 'subject'::text)
            ELSE NULL::text
        END AS subject,
    atproto_records.active,
    atproto_records.first_seen_at,
    atproto_records.updated_at
   FROM atproto_records
  WHERE (atproto_records.collection = 'app.bsky.graph.follow'::text);
COMMENT ON VIEW follows IS 'Follows (app.bsky.graph.follow) [parity_dagster 59632b986fc9]';
COMMENT ON COLUMN follows.did IS 'Account';
COMMENT ON COLUMN follows.rkey IS 'Record key';
COMMENT ON COLUMN follows.uri IS 'at://did/collection/rkey';
COMMENT ON COLUMN follows.cid IS 'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN follows.created_at IS 'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN follows.subject IS 'DID of the account that is followed';
COMMENT ON COLUMN follows.active IS 'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN follows.first_seen_at IS 'When the record was stored first';
COMMENT ON COLUMN follows.updated_at IS 'When this version was stored';
CREATE VIEW likes AS
 SELECT atproto_records.did,
    atproto_records.rkey,
    atproto_records.uri,
    atproto_records.cid,
    parity_timestamp((atproto_records.value ->> 'createdAt'::text)) AS created_at,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{subject,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{subject,uri}'::text[])
            ELSE NULL::text
        END AS subject,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{subject,cid}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{subject,cid}'::text[])
            ELSE NULL::text
        END AS subject_cid,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{via,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{via,uri}'::text[])
            ELSE NULL::text
        END AS via,
    atproto_records.active,
    atproto_records.first_seen_at,
    atproto_records.updated_at
   FROM atproto_records
  WHERE (atproto_records.collection = 'app.bsky.feed.like'::text);
COMMENT ON VIEW likes IS 'Likes (app.bsky.feed.like) [parity_dagster b9f3312de1d1]';
COMMENT ON COLUMN likes.did IS 'Account';
COMMENT ON COLUMN likes.rkey IS 'Record key';
COMMENT ON COLUMN likes.uri IS 'at://did/collection/rkey';
COMMENT ON COLUMN likes.cid IS 'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN likes.created_at IS 'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN likes.subject IS 'URI of the post';
COMMENT ON COLUMN likes.subject_cid IS 'Version of the post';
COMMENT ON COLUMN likes.via IS 'URI of the repost through which the author met it';
COMMENT ON COLUMN likes.active IS 'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN likes.first_seen_at IS 'When the record was stored first';
COMMENT ON COLUMN likes.updated_at IS 'When this version was stored';
CREATE TABLE parity_alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE parity_announcements (
    did text NOT NULL COLLATE pg_catalog."C",
    collection text NOT NULL COLLATE pg_catalog."C",
    importer_id integer NOT NULL,
    fetched boolean NOT NULL,
    ended_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE parity_announcements IS 'Imports that have ended and whose ending the listeners have not been told yet';
COMMENT ON COLUMN parity_announcements.importer_id IS 'Row of parity_importers that will tell them, if it is alive';
COMMENT ON COLUMN parity_announcements.fetched IS 'Whether anything was read';
COMMENT ON COLUMN parity_announcements.ended_at IS 'When the ending was committed; equals updated_at of the state row then';
CREATE TABLE parity_failed_records (
    id bigint NOT NULL,
    did text NOT NULL COLLATE pg_catalog."C",
    collection text NOT NULL COLLATE pg_catalog."C",
    rkey text COLLATE pg_catalog."C",
    fingerprint text NOT NULL COLLATE pg_catalog."C",
    reason text NOT NULL,
    detail text NOT NULL,
    body bytea NOT NULL,
    pds text,
    walk integer NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    retries integer DEFAULT 0 NOT NULL
);
COMMENT ON TABLE parity_failed_records IS 'Records that could not be stored, byte for byte, with the reason';
COMMENT ON COLUMN parity_failed_records.rkey IS 'Record key, if one could be read';
COMMENT ON COLUMN parity_failed_records.fingerprint IS 'SHA-256 of body, in hexadecimal';
COMMENT ON COLUMN parity_failed_records.reason IS 'Code of the reason';
COMMENT ON COLUMN parity_failed_records.detail IS 'The reason, for a reader';
COMMENT ON COLUMN parity_failed_records.body IS 'The entry of the page as received';
COMMENT ON COLUMN parity_failed_records.walk IS 'Walk of the state row that met it last';
COMMENT ON COLUMN parity_failed_records.retries IS 'How often it was tried again';
ALTER TABLE parity_failed_records ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME parity_failed_records_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE parity_identities (
    did text NOT NULL COLLATE pg_catalog."C",
    handle text,
    pds text NOT NULL,
    resolved_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE parity_identities IS 'Where each account was last found';
COMMENT ON COLUMN parity_identities.pds IS 'Host of the account''s repository';
CREATE TABLE parity_import_states (
    id bigint NOT NULL,
    did text NOT NULL COLLATE pg_catalog."C",
    collection text NOT NULL COLLATE pg_catalog."C",
    status text DEFAULT 'pending'::text NOT NULL,
    cursor text,
    records_synced bigint DEFAULT 0 NOT NULL,
    records_skipped bigint DEFAULT 0 NOT NULL,
    records_failed bigint DEFAULT 0 NOT NULL,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    pds text,
    rev text COLLATE pg_catalog."C",
    walk integer DEFAULT 0 NOT NULL,
    pages integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    next_attempt_at timestamp with time zone,
    error_code text,
    run_id text,
    importer_id integer,
    refresh boolean DEFAULT false NOT NULL,
    batch text COLLATE pg_catalog."C",
    CONSTRAINT parity_import_states_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'in_progress'::text, 'completed'::text, 'failed'::text])))
)
WITH (fillfactor='70');
COMMENT ON TABLE parity_import_states IS 'How far the import of each (did, collection) is';
COMMENT ON COLUMN parity_import_states.did IS 'Account';
COMMENT ON COLUMN parity_import_states.collection IS 'NSID of the collection';
COMMENT ON COLUMN parity_import_states.status IS 'pending, in_progress, completed or failed';
COMMENT ON COLUMN parity_import_states.cursor IS 'Where the next page starts; means nothing to any host but pds';
COMMENT ON COLUMN parity_import_states.records_synced IS 'Records of this walk stored, or found to be stored already';
COMMENT ON COLUMN parity_import_states.records_skipped IS 'Records of this walk that a mapper declined';
COMMENT ON COLUMN parity_import_states.records_failed IS 'Records of this walk kept in parity_failed_records';
COMMENT ON COLUMN parity_import_states.started_at IS 'When this walk began';
COMMENT ON COLUMN parity_import_states.completed_at IS 'When the list was read to its end';
COMMENT ON COLUMN parity_import_states.error IS 'What went wrong last, for a reader';
COMMENT ON COLUMN parity_import_states.updated_at IS 'Last change of this row';
COMMENT ON COLUMN parity_import_states.pds IS 'Host that the cursor belongs to';
COMMENT ON COLUMN parity_import_states.rev IS 'Revision of the repository when this walk began';
COMMENT ON COLUMN parity_import_states.walk IS 'Number of this reading of the list from its start';
COMMENT ON COLUMN parity_import_states.pages IS 'Pages committed in this walk';
COMMENT ON COLUMN parity_import_states.attempts IS 'Attempts that ended in an error since the last success';
COMMENT ON COLUMN parity_import_states.next_attempt_at IS 'When the retry sensor may try again; null: not by itself';
COMMENT ON COLUMN parity_import_states.error_code IS 'Class of the error, one of the codes in parity_dagster/errors.py';
COMMENT ON COLUMN parity_import_states.run_id IS 'Dagster run that worked on it last';
COMMENT ON COLUMN parity_import_states.importer_id IS 'Row of parity_importers that has claimed it';
COMMENT ON COLUMN parity_import_states.refresh IS 'Whether a completed pair is to be read again';
COMMENT ON COLUMN parity_import_states.batch IS 'Batch that the queue launched it in, until a run takes it up';
ALTER TABLE parity_import_states ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME parity_import_states_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE parity_importers (
    id integer NOT NULL,
    hostname text NOT NULL,
    pid integer NOT NULL,
    run_id text,
    started_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE parity_importers IS 'Importing processes that are alive or were killed';
ALTER TABLE parity_importers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME parity_importers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE parity_tombstones (
    did text NOT NULL COLLATE pg_catalog."C",
    collection text NOT NULL COLLATE pg_catalog."C",
    rkey text NOT NULL COLLATE pg_catalog."C",
    rev text NOT NULL COLLATE pg_catalog."C",
    deleted_at timestamp with time zone DEFAULT now() NOT NULL
);
COMMENT ON TABLE parity_tombstones IS 'Records that live events deleted, so that an older page cannot bring them back';
COMMENT ON COLUMN parity_tombstones.rev IS 'Revision of the repository that deleted the record';
COMMENT ON COLUMN parity_tombstones.deleted_at IS 'When the event arrived';
CREATE TABLE parity_walk_pages (
    state_id bigint NOT NULL,
    page integer NOT NULL,
    rkeys text[] NOT NULL,
    skipped_rkeys text[] NOT NULL
)
WITH (toast_tuple_target='8160');
COMMENT ON TABLE parity_walk_pages IS 'Record keys of the pages of a walk under way, so that a repeat counts once';
CREATE VIEW posts AS
 SELECT atproto_records.did,
    atproto_records.rkey,
    atproto_records.uri,
    atproto_records.cid,
    parity_timestamp((atproto_records.value ->> 'createdAt'::text)) AS created_at,
        CASE
            WHEN (jsonb_typeof((atproto_records.value -> 'text'::text)) = 'string'::text) THEN (atproto_records.value ->> 'text'::text)
            ELSE NULL::text
        END AS text,
        CASE
            WHEN (jsonb_typeof((atproto_records.value -> 'langs'::text)) = 'array'::text) THEN ARRAY( SELECT (item.value #>> '{}'::text[])
               FROM jsonb_array_elements((atproto_records.value -> 'langs'::text)) item(value)
              WHERE (jsonb_typeof(item.value) = 'string'::text))
            ELSE NULL::text[]
        END AS langs,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{reply,root,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{reply,root,uri}'::text[])
            ELSE NULL::text
        END AS reply_root,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{reply,parent,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{reply,parent,uri}'::text[])
            ELSE NULL::text
        END AS reply_parent,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{embed,$type}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{embed,$type}'::text[])
            ELSE NULL::text
        END AS embed_type,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{embed,record,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{embed,record,uri}'::text[])
            ELSE NULL::text
        END AS quoted,
        CASE
            WHEN (jsonb_typeof((atproto_records.value -> 'tags'::text)) = 'array'::text) THEN ARRAY( SELECT (item.value #>> '{}'::text[])
               FROM jsonb_array_elements((atproto_records.value -> 'tags'::text)) item(value)
              WHERE (jsonb_typeof(item.value) = 'string'::text))
            ELSE NULL::text[]
        END AS tags,
    (atproto_records.value -> 'facets'::text) AS facets,
    (atproto_records.value -> 'labels'::text) AS labels,
    atproto_records.active,
    atproto_records.first_seen_at,
    atproto_records.updated_at
   FROM atproto_records
  WHERE (atproto_records.collection = 'app.bsky.feed.post'::text);
COMMENT ON VIEW posts IS 'Posts (app.bsky.feed.post) [parity_dagster 7911afc68b8c]';
COMMENT ON COLUMN posts.did IS 'Account';
COMMENT ON COLUMN posts.rkey IS 'Record key';
COMMENT ON COLUMN posts.uri IS 'at://did/collection/rkey';
COMMENT ON COLUMN posts.cid IS 'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN posts.created_at IS 'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN posts.text IS 'What it says; empty if the post is only an image';
COMMENT ON COLUMN posts.langs IS 'Languages, as BCP 47 tags';
COMMENT ON COLUMN posts.reply_root IS 'URI of the thread''s first post; null if it is no reply';
COMMENT ON COLUMN posts.reply_parent IS 'URI of the post that it replies to';
COMMENT ON COLUMN posts.embed_type IS 'NSID of what is embedded: images, video, a link, a quote';
COMMENT ON COLUMN posts.quoted IS 'URI of the record that it quotes';
COMMENT ON COLUMN posts.tags IS 'Hashtags besides those in the text';
COMMENT ON COLUMN posts.facets IS 'Mentions, links and hashtags within the text';
COMMENT ON COLUMN posts.labels IS 'Content warnings that the author has set';
COMMENT ON COLUMN posts.active IS 'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN posts.first_seen_at IS 'When the record was stored first';
COMMENT ON COLUMN posts.updated_at IS 'When this version was stored';
CREATE VIEW profiles AS
 SELECT atproto_records.did,
    atproto_records.rkey,
    atproto_records.uri,
    atproto_records.cid,
    parity_timestamp((atproto_records.value ->> 'createdAt'::text)) AS created_at,
        CASE
            WHEN (jsonb_typeof((atproto_records.value -> 'displayName'::text)) = 'string'::text) THEN (atproto_records.value ->> 'displayName'::text)
            ELSE NULL::text
        END AS display_name,
        CASE
            WHEN (jsonb_typeof((atproto_records.value -> 'description'::text)) = 'string'::text) THEN (atproto_records.value ->> 'description'::text)
            ELSE NULL::text
        END AS description,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{avatar,ref,$link}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{avatar,ref,$link}'::text[])
            ELSE NULL::text
        END AS avatar,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{banner,ref,$link}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{banner,ref,$link}'::text[])
            ELSE NULL::text
        END AS banner,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{pinnedPost,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{pinnedPost,uri}'::text[])
            ELSE NULL::text
        END AS pinned_post,
    (atproto_records.value -> 'labels'::text) AS labels,
    atproto_records.active,
    atproto_records.first_seen_at,
    atproto_records.updated_at
   FROM atproto_records
  WHERE (atproto_records.collection = 'app.bsky.actor.profile'::text);
COMMENT ON VIEW profiles IS 'Profiles (app.bsky.actor.profile); a well-formed account has one, under the record key self [parity_dagster 1a65d0d332f1]';
COMMENT ON COLUMN profiles.did IS 'Account';
COMMENT ON COLUMN profiles.rkey IS 'Record key';
COMMENT ON COLUMN profiles.uri IS 'at://did/collection/rkey';
COMMENT ON COLUMN profiles.cid IS 'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN profiles.created_at IS 'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN profiles.display_name IS 'Name shown beside the handle';
COMMENT ON COLUMN profiles.description IS 'What the account says about itself';
COMMENT ON COLUMN profiles.avatar IS 'CID of the picture';
COMMENT ON COLUMN profiles.banner IS 'CID of the banner';
COMMENT ON COLUMN profiles.pinned_post IS 'URI of the pinned post';
COMMENT ON COLUMN profiles.labels IS 'Labels that the account has given itself';
COMMENT ON COLUMN profiles.active IS 'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN profiles.first_seen_at IS 'When the record was stored first';
COMMENT ON COLUMN profiles.updated_at IS 'When this version was stored';
CREATE VIEW reposts AS
 SELECT atproto_records.did,
    atproto_records.rkey,
    atproto_records.uri,
    atproto_records.cid,
    parity_timestamp((atproto_records.value ->> 'createdAt'::text)) AS created_at,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{subject,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{subject,uri}'::text[])
            ELSE NULL::text
        END AS subject,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{subject,cid}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{subject,cid}'::text[])
            ELSE NULL::text
        END AS subject_cid,
        CASE
            WHEN (jsonb_typeof((atproto_records.value #> '{via,uri}'::text[])) = 'string'::text) THEN (atproto_records.value #>> '{via,uri}'::text[])
            ELSE NULL::text
        END AS via,
    atproto_records.active,
    atproto_records.first_seen_at,
    atproto_records.updated_at
   FROM atproto_records
  WHERE (atproto_records.collection = 'app.bsky.feed.repost'::text);
COMMENT ON VIEW reposts IS 'Reposts (app.bsky.feed.repost) [parity_dagster 43ff982baa67]';
COMMENT ON COLUMN reposts.did IS 'Account';
COMMENT ON COLUMN reposts.rkey IS 'Record key';
COMMENT ON COLUMN reposts.uri IS 'at://did/collection/rkey';
COMMENT ON COLUMN reposts.cid IS 'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN reposts.created_at IS 'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN reposts.subject IS 'URI of the post';
COMMENT ON COLUMN reposts.subject_cid IS 'Version of the post';
COMMENT ON COLUMN reposts.via IS 'URI of the repost through which the author met it';
COMMENT ON COLUMN reposts.active IS 'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN reposts.first_seen_at IS 'When the record was stored first';
COMMENT ON COLUMN reposts.updated_at IS 'When this version was stored';
INSERT INTO atproto_records VALUES
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khzizwm7mx6k', 'bafyreiajigbb42hiegbchch6wemqvo6xwsb35gjcpuctoqzub7yhvh6rzm', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreiba5gxul5ojjhoaolvuez5y3kaouev42tscmk2rqdoyct4zq2hoba", "uri": "at://did:plc:ovsrvilzjigbb42hiegbchch/app.bsky.feed.post/3g3xoqsyvsv4s"}, "createdAt": "2024-01-02T19:17:50.143Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khzizp2hrmst', 'bafyreihjigbb42hiegbchchq6aia7mfhkn52ss4gj6xj4njqbrgbsyq324', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreib3y3kr23lfkjpcl7xbn5q2nwsfehk2uhji7aocefitenindzzo7e", "uri": "at://did:plc:s2qcafzqjigbb42hiegbchch/app.bsky.feed.post/36nsjmo7xtryi"}, "createdAt": "2024-01-02T19:17:42.221Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khzizchaetka', 'bafyreiajigbb42hiegbchchjbambi3abicisnxrkqkdly4cp2g4ra6ysh4', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreibcgjafppzhefy6otbdqhrcusrawdh7olc2uipty3lyopnoi4cs6m", "uri": "at://did:plc:cfdb6e3zjigbb42hiegbchch/app.bsky.feed.post/3pro5lna66smm"}, "createdAt": "2024-01-02T19:17:29.008Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khziyxthywem', 'bafyreidjigbb42hiegbchch6d2dh2kq4m3tmoeg6avkmq2fbtgc53kyrry', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreif45ygghxyj6nwipjn4oahsm4fiuizb32bfxz4gowcztcsugsyzim", "uri": "at://did:plc:miv5sa2sjigbb42hiegbchch/app.bsky.feed.post/3m6teohvpgktm"}, "createdAt": "2024-01-02T19:17:17.875Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khziynmmp3gl', 'bafyreidjigbb42hiegbchchx3uvsn7d5yoeom4sq7zsx3lvhpx3u62fvey', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreiay6iw7jayoqiidtyuesnkkexux2pcfdxz35znhf43if6cfuicpam", "uri": "at://did:plc:eqacgzcdjigbb42hiegbchch/app.bsky.feed.post/32u263j75gw3b"}, "createdAt": "2024-01-02T19:17:07.164Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khziyfwzl5g6', 'bafyreifjigbb42hiegbchchek7yqosef3a7duhfjybn5bhczwxwbj3efii', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreien4g2ejnaq5xmuw7ykjmbb2tpobfeq4kojytuahl5jt7shgteixe", "uri": "at://did:plc:cvi76klqjigbb42hiegbchch/app.bsky.feed.post/3snql6trarzvj"}, "createdAt": "2024-01-02T19:16:59.117Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khzixzjvpzub', 'bafyreiajigbb42hiegbchchbtrll2ffyrmjppoqqpoakeswjupqkwh3zne', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreiafpes64lz7levkh2tpeb254czftuyykxtm3rxtpwtkchsrrn3yza", "uri": "at://did:plc:xqmsq5e7jigbb42hiegbchch/app.bsky.feed.post/3yhuc22gt6hhy"}, "createdAt": "2024-01-02T19:16:46.104Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khzixr77jslh', 'bafyreibjigbb42hiegbchchwcl5redtyu6a7i7dyzvbetblqnkrwos7mhu', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreibstylz5c5m2ne6hkprnkr3dt22juyjwo5zkhyjiw6iccup66excm", "uri": "at://did:plc:46eluaxdjigbb42hiegbchch/app.bsky.feed.post/3wkrorygpkhol"}, "createdAt": "2024-01-02T19:16:37.365Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khzixfolfjp4', 'bafyreiajigbb42hiegbchchzoalmkztrwnmw5rypflncrqjq74ybb2fufi', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreidjmevav4f7boteci3ecvksfha25ggjwdmtyduiklgwad2jqka2ue", "uri": "at://did:plc:j4x5npe5jigbb42hiegbchch/app.bsky.feed.post/3oyf5t7uyfr4z"}, "createdAt": "2024-01-02T19:16:25.285Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khzix2w7tnv3', 'bafyreidjigbb42hiegbchchc4k3b52uavwqvyw5ghblvfzidbtspypoqgi', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreiedlxujbc5dc34splv5rfecb7v6muhhaydi6thd5eluber5rc7x7i", "uri": "at://did:plc:slaghrm2jigbb42hiegbchch/app.bsky.feed.post/32j2kazppw3jb"}, "createdAt": "2024-01-02T19:16:14.001Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.922168+00', '2026-11-24 16:40:52.922168+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzizwm7mx6k', 'bafyreici3f5e32bcihj26djs6mxbi4babbc44777hy32xgrwsw6ql4fona', '{"text": "Finally got the sourdough right. “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["zh"], "createdAt": "2024-01-02T19:17:50.143Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzizp2hrmst', 'bafyreiai3f5e32bcihj26djt3ajwmcbvmcqjjxuugd3lmhpu5l7kaebosu', '{"text": "La récolte de tomates est énorme cette année 🍅🍅 ありがとう", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "Nova versão publicada, com correções pequenas.", "image": {"ref": {"$link": "bafkreifcowc7exvusbry3ccrlga7pclzezhxnyydnmwf3ky4we3uekawd4"}, "size": 855526, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}, {"alt": "Nova versão publicada, com correções pequenas.", "image": {"ref": {"$link": "bafkreifcowc7exvusbry3ccrlga7pclzezhxnyydnmwf3ky4we3uekawd4"}, "size": 855526, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["fr"], "createdAt": "2024-01-02T19:17:42.221Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzizchaetka', 'bafyreiai3f5e32bcihj26djqdi7n45l2az5p3f3neseawkwsyucelatpua', '{"text": "Reading about the harbour strike of 1926 again Thread below ⬇️", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "今天的晚霞太好看了", "image": {"ref": {"$link": "bafkreidcm3xpzxpc3iujdzmmc5blrm63uaaxddwctzjjgs5tcuv2ndvkqq"}, "size": 63451, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}, {"alt": "今天的晚霞太好看了", "image": {"ref": {"$link": "bafkreidcm3xpzxpc3iujdzmmc5blrm63uaaxddwctzjjgs5tcuv2ndvkqq"}, "size": 63451, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["de"], "createdAt": "2024-01-02T19:17:29.008Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziyxthywem', 'bafyreigi3f5e32bcihj26djvxagcqipqyaakpde5peihyd7md3qtgys3w4', '{"text": "The herons are back at the canal 🪶 Photos when I''m home.", "$type": "app.bsky.feed.post", "langs": ["ja"], "createdAt": "2024-01-02T19:17:17.875Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziynmmp3gl', 'bafyreidi3f5e32bcihj26djvsojj5qwjrifpwdxq3nk6r2n7f4eii7teqe', '{"text": "今天的晚霞太好看了 ありがとう", "$type": "app.bsky.feed.post", "langs": ["en"], "reply": {"root": {"cid": "bafyreihuqbp6nrpxsnh3pp7b7vqz7xnr4zqsbuxnm5u67stf6uwg3avx7a", "uri": "at://did:plc:ojk73zpvi3f5e32bcihj26dj/app.bsky.feed.post/3biscmnvtnxwy"}, "parent": {"cid": "bafyreihuqbp6nrpxsnh3pp7b7vqz7xnr4zqsbuxnm5u67stf6uwg3avx7a", "uri": "at://did:plc:ojk73zpvi3f5e32bcihj26dj/app.bsky.feed.post/3biscmnvtnxwy"}}, "createdAt": "2024-01-02T19:17:07.164Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziyfwzl5g6', 'bafyreiai3f5e32bcihj26dj3syw7an4534g47lrd3oykrb6bsrotrooyru', '{"text": "Nova versão publicada, com correções pequenas. “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["de"], "reply": {"root": {"cid": "bafyreiaqsuyqptkomnn5m5hyz4oiwdnri4e6oblv5ytkq7s6xt5tr2mkui", "uri": "at://did:plc:g2eexuwji3f5e32bcihj26dj/app.bsky.feed.post/3jby2jldhflze"}, "parent": {"cid": "bafyreiaqsuyqptkomnn5m5hyz4oiwdnri4e6oblv5ytkq7s6xt5tr2mkui", "uri": "at://did:plc:g2eexuwji3f5e32bcihj26dj/app.bsky.feed.post/3jby2jldhflze"}}, "createdAt": "2024-01-02T19:16:59.117Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzixzjvpzub', 'bafyreihi3f5e32bcihj26djo3mxnpeavbvuhferm5y5bvqupsfdbeakesa', '{"text": "La récolte de tomates est énorme cette année 🍅🍅 Und jetzt Kaffee ☕ https://example.org/notes/43056", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.external", "external": {"uri": "https://example.org/notes/43056", "title": "Nova versão publicada, com correções pequenas.", "description": "(I checked twice.)"}}, "langs": ["de"], "facets": [{"index": {"byteEnd": 109, "byteStart": 78}, "features": [{"uri": "https://example.org/notes/43056", "$type": "app.bsky.richtext.facet#link"}]}], "createdAt": "2024-01-02T19:16:46.104Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzixr77jslh', 'bafyreiei3f5e32bcihj26djt7uezbx4m3rrdbvxm7k4wqe5qcxjhinqdaq', '{"text": "Three hours of debugging, one missing comma. “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "Nova versão publicada, com correções pequenas.", "image": {"ref": {"$link": "bafkreigr4lht2ypefhuhdmuprpmaezwtlvixsm63y3k6fy6xzj7deqy3wm"}, "size": 633942, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["fr"], "createdAt": "2024-01-02T19:16:37.365Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzixfolfjp4', 'bafyreigi3f5e32bcihj26djbdja437nfveoohamm6ykdtl4rqwjiqatnme', '{"text": "Nova versão publicada, com correções pequenas.", "$type": "app.bsky.feed.post", "langs": ["ja"], "reply": {"root": {"cid": "bafyreihvjeaergkphhgfmvcxfcdebzflydcn3d7pprjplvjegcdffxo25m", "uri": "at://did:plc:pntblh3ai3f5e32bcihj26dj/app.bsky.feed.post/3crti2ko54ptc"}, "parent": {"cid": "bafyreihvjeaergkphhgfmvcxfcdebzflydcn3d7pprjplvjegcdffxo25m", "uri": "at://did:plc:pntblh3ai3f5e32bcihj26dj/app.bsky.feed.post/3crti2ko54ptc"}}, "createdAt": "2024-01-02T19:16:25.285Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzix2w7tnv3', 'bafyreihi3f5e32bcihj26djj4halx6cuphct7zkpddvbdhzsryeqynwwry', '{"text": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉 Thread below ⬇️", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.record", "record": {"cid": "bafyreigecqlnyf6jbvb6g7otnk4vvphvh5o4ne7bwxvbmyzwxffzpm43ze", "uri": "at://did:plc:ccejv7fgi3f5e32bcihj26dj/app.bsky.feed.post/3zmfpvdcwwbmn"}}, "langs": ["zh"], "createdAt": "2024-01-02T19:16:14.001Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.935079+00', '2026-11-24 16:40:52.935079+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziwstetxuu', 'bafyreigi3f5e32bcihj26djw3lq3klnnhkoaran4h6idk6rox2vxesfksi', '{"text": "La récolte de tomates est énorme cette année 🍅🍅 Thread below ⬇️", "$type": "app.bsky.feed.post", "langs": ["pt"], "reply": {"root": {"cid": "bafyreie7tffueefkl5c5cxe23ccrk7lcywowolh63fiomm2lfv6wi2ui5a", "uri": "at://did:plc:rqgsmm3qi3f5e32bcihj26dj/app.bsky.feed.post/3nganktyu5g7b"}, "parent": {"cid": "bafyreie7tffueefkl5c5cxe23ccrk7lcywowolh63fiomm2lfv6wi2ui5a", "uri": "at://did:plc:rqgsmm3qi3f5e32bcihj26dj/app.bsky.feed.post/3nganktyu5g7b"}}, "createdAt": "2024-01-02T19:16:05.520Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziwfum62bj', 'bafyreigi3f5e32bcihj26dj7rlg5stoii3lbdnw4vl5fsuj2v6lzlz4jfe', '{"text": "Finally got the sourdough right. “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["en"], "reply": {"root": {"cid": "bafyreiastraalyi7vkpodwh673vhlwmnduvuf5qvizdllh24mosxs4ag2i", "uri": "at://did:plc:n4ki2grai3f5e32bcihj26dj/app.bsky.feed.post/3gsax27a3lk3r"}, "parent": {"cid": "bafyreiastraalyi7vkpodwh673vhlwmnduvuf5qvizdllh24mosxs4ag2i", "uri": "at://did:plc:n4ki2grai3f5e32bcihj26dj/app.bsky.feed.post/3gsax27a3lk3r"}}, "createdAt": "2024-01-02T19:15:51.928Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziw6mghhf4', 'bafyreiai3f5e32bcihj26djunaopdnjkpuouwwwohwo3a523ql2oy5y6q4', '{"text": "The herons are back at the canal 🪶 Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["fr"], "reply": {"root": {"cid": "bafyreihhxbrpfwvw77s7ybczhqaj67w3amgjpuxogzar3coj45ibnlc73i", "uri": "at://did:plc:eksuoueki3f5e32bcihj26dj/app.bsky.feed.post/3pt52mk3ye6s3"}, "parent": {"cid": "bafyreig4os2fybxzvrkwtgu67wubiz3atwi6uiz7rptwsbu4g5btcx42um", "uri": "at://did:plc:eksuoueki3f5e32bcihj26dj/app.bsky.feed.post/3nqhkic3xzegf"}}, "createdAt": "2024-01-02T19:15:44.320Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzivuix2nao', 'bafyreiai3f5e32bcihj26dj72krmogo26feuliumyrqq5ierp35g5rpsre', '{"text": "おはようございます。今日は雨ですね Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["en"], "createdAt": "2024-01-02T19:15:33.721Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khziwstetxuu', 'bafyreibjigbb42hiegbchch7nswyd4qqgvar56jdi7xskdrfte45ctfmgi', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreibnne2re4wpatpcegnlq4yexwbffynql6th6zzqoyphtjb2mqvn4e", "uri": "at://did:plc:wvzp6kwjjigbb42hiegbchch/app.bsky.feed.post/3ghqzqikwstzx"}, "createdAt": "2024-01-02T19:16:05.520Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.969071+00', '2026-11-24 16:40:52.969071+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3khziwfum62bj', 'bafyreicjigbb42hiegbchchouj5f5xkfata46ud7hl24iignr73xmsoqqe', '{"$type": "app.bsky.feed.like", "subject": {"cid": "bafyreiau6stshxayceiriwsjejnhvgbgtv4sd6zbsvym7nqbnqnaoig42i", "uri": "at://did:plc:nvk4vdr6jigbb42hiegbchch/app.bsky.feed.post/3sb5y4ugmsne4"}, "createdAt": "2024-01-02T19:15:51.928Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.969071+00', '2026-11-24 16:40:52.969071+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziviqrp347', 'bafyreihi3f5e32bcihj26djpvvx4c7ejkf5cidwbptrn3qzwhcph6g5ehi', '{"text": "今天的晚霞太好看了 Thread below ⬇️", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "おはようございます。今日は雨ですね", "image": {"ref": {"$link": "bafkreiduiox2wbwiozq2ikkyrx6eeflh4mpbbvtqogwonmvat22u5iwnpe"}, "size": 163947, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["pt"], "createdAt": "2024-01-02T19:15:21.394Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziv4r23c7u', 'bafyreibi3f5e32bcihj26dji4ix7opvnehhi3chrbzos4e6fk7yfeluthq', '{"text": "Three hours of debugging, one missing comma. What would you have done?", "$type": "app.bsky.feed.post", "langs": ["en"], "reply": {"root": {"cid": "bafyreigfuhli4m2oq6pfx3qbjorrzkkfvom44am3qvgrhiowhwbinfw4bm", "uri": "at://did:plc:mc7ris65i3f5e32bcihj26dj/app.bsky.feed.post/34yhh5uowuca7"}, "parent": {"cid": "bafyreihstjqwhm3sf3yopz2a2pkoshymvsqlgi3z3l3mwls47rgocypz2a", "uri": "at://did:plc:mc7ris65i3f5e32bcihj26dj/app.bsky.feed.post/3pojxpbpzongd"}}, "createdAt": "2024-01-02T19:15:08.820Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziusoyiefl', 'bafyreigi3f5e32bcihj26djxuuprveebfupln7abr3mmrsry22xizwdume', '{"text": "Does anybody else keep a paper notebook for bugs? ありがとう", "$type": "app.bsky.feed.post", "langs": ["zh"], "reply": {"root": {"cid": "bafyreie4w7d6gpzutqxdpxng2suvo3oehnkk4lreaou2vbtjaorr4si3se", "uri": "at://did:plc:miociugei3f5e32bcihj26dj/app.bsky.feed.post/3uryd2uahoauf"}, "parent": {"cid": "bafyreie4w7d6gpzutqxdpxng2suvo3oehnkk4lreaou2vbtjaorr4si3se", "uri": "at://did:plc:miociugei3f5e32bcihj26dj/app.bsky.feed.post/3uryd2uahoauf"}}, "createdAt": "2024-01-02T19:14:58.267Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziuiarzysv', 'bafyreigi3f5e32bcihj26djpweyoyuwkr4zqvvcfrrtvrnoe4atfyq32tu', '{"text": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉 More tomorrow. https://example.org/notes/17411", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.external", "external": {"uri": "https://example.org/notes/17411", "title": "I moved my whole homelab to a single fanless box", "description": "ありがとう"}}, "langs": ["pt"], "facets": [{"index": {"byteEnd": 98, "byteStart": 67}, "features": [{"uri": "https://example.org/notes/17411", "$type": "app.bsky.richtext.facet#link"}]}], "createdAt": "2024-01-02T19:14:47.316Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziubfe362c', 'bafyreigi3f5e32bcihj26djfm5dg7gir5axtgjb3t3tojcgw7pjr2yt47i', '{"text": "I moved my whole homelab to a single fanless box ありがとう", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-01-02T19:14:40.125Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzittpfevhv', 'bafyreigi3f5e32bcihj26djrlikjm4mmhspnfdy7ceehvnn72trmhtfvpy', '{"text": "I moved my whole homelab to a single fanless box ありがとう", "$type": "app.bsky.feed.post", "langs": ["ja"], "reply": {"root": {"cid": "bafyreiep7fqbs733lfuo3jezecn7znueanqqmyuzygiseqemomag53llcm", "uri": "at://did:plc:wighghlbi3f5e32bcihj26dj/app.bsky.feed.post/3krl4ybwxifk6"}, "parent": {"cid": "bafyreibongxfqvnub446pxwvz3hvxx6ned5tjobbpmn57ld7qtg3lajvwe", "uri": "at://did:plc:wighghlbi3f5e32bcihj26dj/app.bsky.feed.post/33bicecofmwcu"}}, "createdAt": "2024-01-02T19:14:25.774Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzitjnddgd2', 'bafyreibi3f5e32bcihj26djphskcaiw7sku2axwugy3p3uecght2d4qywa', '{"text": "Nova versão publicada, com correções pequenas. “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["pt"], "reply": {"root": {"cid": "bafyreiaul4bl7nftdkf64lzpolma5nt3xpm2mpick3z6zgr55jhkhaanam", "uri": "at://did:plc:afqy5ieii3f5e32bcihj26dj/app.bsky.feed.post/3yvguikj55bpq"}, "parent": {"cid": "bafyreie5icpiqthyxbulrphzwqfs6hetsdk6ta536amnchuyzgyjc5n5km", "uri": "at://did:plc:afqy5ieii3f5e32bcihj26dj/app.bsky.feed.post/3tsas56kezv56"}}, "createdAt": "2024-01-02T19:14:15.221Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzitbstbnwh', 'bafyreiei3f5e32bcihj26djn325q3rg7q6bcwuubcpq5angqje7lwz3fvq', '{"text": "今天的晚霞太好看了 Photos when I''m home.", "$type": "app.bsky.feed.post", "langs": ["ja"], "reply": {"root": {"cid": "bafyreierxaiah7ksn7kkwyhwqtvlya5mueugdi6eleporxj3hovpskeyei", "uri": "at://did:plc:kkddmie4i3f5e32bcihj26dj/app.bsky.feed.post/33bneeu56m47p"}, "parent": {"cid": "bafyreierxaiah7ksn7kkwyhwqtvlya5mueugdi6eleporxj3hovpskeyei", "uri": "at://did:plc:kkddmie4i3f5e32bcihj26dj/app.bsky.feed.post/33bneeu56m47p"}}, "createdAt": "2024-01-02T19:14:07.013Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzisxctyopm', 'bafyreiai3f5e32bcihj26djfgrvlbjq2t5gd2iirbeb3lkoltayu55ulju', '{"text": "La récolte de tomates est énorme cette année 🍅🍅 (I checked twice.)", "$type": "app.bsky.feed.post", "langs": ["en"], "reply": {"root": {"cid": "bafyreianpft5tioxhns7tgvaikyxeeiqwxbkpqdutpcnbfd4pwc2og7d3a", "uri": "at://did:plc:czt6alnmi3f5e32bcihj26dj/app.bsky.feed.post/35o3heu55i5rm"}, "parent": {"cid": "bafyreifixhc5rbakvwgxtqfwlgdbapmrv3jkg7nv6kbmmhmo346v6rrrni", "uri": "at://did:plc:czt6alnmi3f5e32bcihj26dj/app.bsky.feed.post/37v2f35e5yr46"}}, "createdAt": "2024-01-02T19:13:56.003Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzisnlbi2ln', 'bafyreidi3f5e32bcihj26djazdmclnj3har2yq5q6x4p6sa6pkyggcsnsa', '{"text": "The herons are back at the canal 🪶", "$type": "app.bsky.feed.post", "langs": ["de"], "createdAt": "2024-01-02T19:13:45.793Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzisdbjp4ah', 'bafyreibi3f5e32bcihj26djbhztakealrlzw3zvmzihkjblolehwqjtrhe', '{"text": "Nova versão publicada, com correções pequenas. Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["pt"], "createdAt": "2024-01-02T19:13:34.988Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzirwizctsl', 'bafyreidi3f5e32bcihj26dj3t4y2wruokkq5ssttajlnhiecfbtpcil5p4', '{"text": "今天的晚霞太好看了 Thread below ⬇️", "$type": "app.bsky.feed.post", "langs": ["de"], "createdAt": "2024-01-02T19:13:21.602Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziroltsqvb', 'bafyreici3f5e32bcihj26djhoduv2sufbastjkszqsv6qed2n4rfxbmpom', '{"text": "La récolte de tomates est énorme cette année 🍅🍅 (I checked twice.)", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-01-02T19:13:13.306Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzire766e2w', 'bafyreidi3f5e32bcihj26dj27xeivfe4btzos55cpvgbj34yu7dpwj2qhe', '{"text": "Does anybody else keep a paper notebook for bugs? More tomorrow.", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.record", "record": {"cid": "bafyreibjkta6ityahwln5bzmo67yzrxkzlqdegkotqu6cbhstmhb7qeeli", "uri": "at://did:plc:6ui3hvxui3f5e32bcihj26dj/app.bsky.feed.post/3sqijck2vkbmj"}}, "langs": ["fr"], "createdAt": "2024-01-02T19:13:02.405Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khzir2krhefn', 'bafyreigi3f5e32bcihj26djjl2ezvrwrainhai5qjcu6tfzqfjnbzrxvaq', '{"text": "Reading about the harbour strike of 1926 again What would you have done?", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉", "image": {"ref": {"$link": "bafkreiddiaflwypdfaktqdntzz4klvzuxetxldd23qjgbnj56bsxppwx7q"}, "size": 722812, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}, {"alt": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉", "image": {"ref": {"$link": "bafkreiddiaflwypdfaktqdntzz4klvzuxetxldd23qjgbnj56bsxppwx7q"}, "size": 722812, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["ja"], "createdAt": "2024-01-02T19:12:52.300Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', '3khziqou5m2bn', 'bafyreici3f5e32bcihj26djmcyg5oc4izaqoji63bi3ijh7v5anxxpvqky', '{"text": "おはようございます。今日は雨ですね Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["en"], "createdAt": "2024-01-02T19:12:40.024Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:52.981128+00', '2026-11-24 16:40:52.981128+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3czwm7mx6k', 'bafyreig7edaide443e23hc2ydssag5hsfjofnthgc3cfjh7bvdt2lurn3m', '{"text": "Reading about the harbour strike of 1926 again “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["zh"], "reply": {"root": {"cid": "bafyreih6biimmr5nqqsenbxnffrlc6qieunftdqvqzdohf2ncmmfz5doea", "uri": "at://did:plc:aegasb7i7edaide443e23hc2/app.bsky.feed.post/32tcvbzl4qaob"}, "parent": {"cid": "bafyreih6biimmr5nqqsenbxnffrlc6qieunftdqvqzdohf2ncmmfz5doea", "uri": "at://did:plc:aegasb7i7edaide443e23hc2/app.bsky.feed.post/32tcvbzl4qaob"}}, "createdAt": "2024-11-29T09:17:50.143Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3czp2hrmst', 'bafyreid7edaide443e23hc2vheazrig5hk3yt3x7237l555s254vyq3elu', '{"text": "Reading about the harbour strike of 1926 again Thread below ⬇️", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-11-29T09:17:42.221Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3czchaetka', 'bafyreif7edaide443e23hc2xgipnlcmmmvuiekgbfc4r5zfabruzw5moky', '{"text": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉 Thread below ⬇️", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-11-29T09:17:29.008Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cyxthywem', 'bafyreih7edaide443e23hc23fkax6kha5erbmp74h5ai5viacwonitteoe', '{"text": "Does anybody else keep a paper notebook for bugs? Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["en"], "reply": {"root": {"cid": "bafyreigomcytuwb7cnw7knbc46g2kqdssu4fyrifm7eg77ey5xk4pc2vrm", "uri": "at://did:plc:zb6b5mdh7edaide443e23hc2/app.bsky.feed.post/3z5j462c6hy2w"}, "parent": {"cid": "bafyreicbwobapk45342s44hrssufh624qurleci7ncsiuhkrjdz4o433zi", "uri": "at://did:plc:zb6b5mdh7edaide443e23hc2/app.bsky.feed.post/3i2hamihlmyrx"}}, "createdAt": "2024-11-29T09:17:17.875Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cynmmp3gl', 'bafyreih7edaide443e23hc2p6ztv4cjac5cae54gb2rkspvedetlgt5fpi', '{"text": "The herons are back at the canal 🪶 Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["zh"], "createdAt": "2024-11-29T09:17:07.164Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cyfwzl5g6', 'bafyreib7edaide443e23hc26i3xr2asupyqnvedhpp26vnlrxaqpis7gvy', '{"text": "The herons are back at the canal 🪶 More tomorrow.", "$type": "app.bsky.feed.post", "langs": ["de"], "reply": {"root": {"cid": "bafyreih6to4annu66y5cpsuq32eilhsuuo4rra6bhhyrirelgn2uhytofm", "uri": "at://did:plc:j7lb3hcf7edaide443e23hc2/app.bsky.feed.post/3ccsmi3aj2bvp"}, "parent": {"cid": "bafyreifgrgk2qlwdmjt2zpobus6ecyeg523wt6lf7qcv2wbmrsijv22qee", "uri": "at://did:plc:j7lb3hcf7edaide443e23hc2/app.bsky.feed.post/3xfu4aej7y5jf"}}, "createdAt": "2024-11-29T09:16:59.117Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cxzjvpzub', 'bafyreic7edaide443e23hc2hi3rnzwsrvgkaucxgxcf4b74ejenku6r24u', '{"text": "Finally got the sourdough right. Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["zh"], "reply": {"root": {"cid": "bafyreicaqo5cwwzg7teduj5x4xrn63qmxjv2gqvqjx3xq32vdveqwbvnoi", "uri": "at://did:plc:bywrrq5m7edaide443e23hc2/app.bsky.feed.post/36iqem3dtfzix"}, "parent": {"cid": "bafyreif63opj3oolo3sgy7dg5cqb5f6uhrxq23rku2sgjvbbofypxib4ma", "uri": "at://did:plc:bywrrq5m7edaide443e23hc2/app.bsky.feed.post/322vnssgikhem"}}, "createdAt": "2024-11-29T09:16:46.104Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3ctjnddgd2', 'bafyreia7edaide443e23hc2r3u4f72eazgcszpmzbmp4nwsyoew5ai23du', '{"text": "Does anybody else keep a paper notebook for bugs? “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-11-29T09:14:15.221Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cxr77jslh', 'bafyreig7edaide443e23hc2gnstjmasfz4rvs7sj3jvdaxl4xbr3axd6cy', '{"text": "The herons are back at the canal 🪶 Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["pt"], "reply": {"root": {"cid": "bafyreib2cus2icbl2c474kqkzx5wcv3rzb723e5u7vghkc5fq3if7cdija", "uri": "at://did:plc:fpzt7try7edaide443e23hc2/app.bsky.feed.post/3mb3dtbae5r3g"}, "parent": {"cid": "bafyreicuiosunmawasltwbmo2iukytfcyacp7uagiyyy4tx4ozyycrlaqm", "uri": "at://did:plc:fpzt7try7edaide443e23hc2/app.bsky.feed.post/3el4rnk77ltab"}}, "createdAt": "2024-11-29T09:16:37.365Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cxfolfjp4', 'bafyreih7edaide443e23hc2ntcg572pd764tzgvxxlxjmti52lh7afgtri', '{"text": "The herons are back at the canal 🪶 Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["en"], "createdAt": "2024-11-29T09:16:25.285Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cx2w7tnv3', 'bafyreib7edaide443e23hc2wuzs2fojyrq5gt65g4wq3t3fq3pwl53bopq', '{"text": "Finally got the sourdough right. Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["en"], "createdAt": "2024-11-29T09:16:14.001Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cwstetxuu', 'bafyreia7edaide443e23hc2ydzahq3jsbjc4vo65dnrpluxmvqkcjbbzb4', '{"text": "Reading about the harbour strike of 1926 again “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["ja"], "reply": {"root": {"cid": "bafyreiawvun4yu4c4ogak5nstpud2hga3vckc7utbpipwcqlaz2plataki", "uri": "at://did:plc:fb63mlsn7edaide443e23hc2/app.bsky.feed.post/3vgmqsteiwccm"}, "parent": {"cid": "bafyreiawvun4yu4c4ogak5nstpud2hga3vckc7utbpipwcqlaz2plataki", "uri": "at://did:plc:fb63mlsn7edaide443e23hc2/app.bsky.feed.post/3vgmqsteiwccm"}}, "createdAt": "2024-11-29T09:16:05.520Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cwfum62bj', 'bafyreia7edaide443e23hc2tzs3rtz4wuh4mmf2rmpvh35ysbcbo4jbz4a', '{"text": "今天的晚霞太好看了 Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["pt"], "createdAt": "2024-11-29T09:15:51.928Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cw6mghhf4', 'bafyreie7edaide443e23hc2awgsc7aznpbs2m7kwsbhyzzhp4thuutzpna', '{"text": "Three hours of debugging, one missing comma. (I checked twice.) #写真", "$type": "app.bsky.feed.post", "langs": ["de"], "facets": [{"index": {"byteEnd": 71, "byteStart": 64}, "features": [{"tag": "写真", "$type": "app.bsky.richtext.facet#tag"}]}], "createdAt": "2024-11-29T09:15:44.320Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cvuix2nao', 'bafyreif7edaide443e23hc23epsz4mqwit62vzmi2o2gcscu6s7bif7av4', '{"text": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉 Photos when I''m home.", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-11-29T09:15:33.721Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cviqrp347', 'bafyreia7edaide443e23hc24vgvluumbxbfhhryvql5qu7hob76xyqjp6e', '{"text": "おはようございます。今日は雨ですね Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["fr"], "reply": {"root": {"cid": "bafyreiblxqhtlhkxqoe2l25q6hmzjds5t2gmraet4llkndptojnafe224a", "uri": "at://did:plc:eobuklp57edaide443e23hc2/app.bsky.feed.post/3h5w53mtthwa4"}, "parent": {"cid": "bafyreiblxqhtlhkxqoe2l25q6hmzjds5t2gmraet4llkndptojnafe224a", "uri": "at://did:plc:eobuklp57edaide443e23hc2/app.bsky.feed.post/3h5w53mtthwa4"}}, "createdAt": "2024-11-29T09:15:21.394Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cv4r23c7u', 'bafyreig7edaide443e23hc2u2uxdn4k24giywepeypjedh2ae2e4wtmlue', '{"text": "Nova versão publicada, com correções pequenas. ありがとう https://example.org/notes/528958", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.external", "external": {"uri": "https://example.org/notes/528958", "title": "Does anybody else keep a paper notebook for bugs?", "description": "Photos when I''m home."}}, "langs": ["de"], "facets": [{"index": {"byteEnd": 98, "byteStart": 66}, "features": [{"uri": "https://example.org/notes/528958", "$type": "app.bsky.richtext.facet#link"}]}], "createdAt": "2024-11-29T09:15:08.820Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cusoyiefl', 'bafyreib7edaide443e23hc2jqulbnvfv4j5bv4h6rxu7rtn2wtbjvgzjvq', '{"text": "Unpopular opinion: the second album was better. “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["ja"], "createdAt": "2024-11-29T09:14:58.267Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cuiarzysv', 'bafyreia7edaide443e23hc2wfxkyxbfd4w44fcbwsaxjzxvqb6hzv5ckie', '{"text": "@friend.sample.test Nova versão publicada, com correções pequenas. Thread below ⬇️", "$type": "app.bsky.feed.post", "langs": ["ja"], "facets": [{"index": {"byteEnd": 19, "byteStart": 0}, "features": [{"did": "did:plc:pjceco357edaide443e23hc2", "$type": "app.bsky.richtext.facet#mention"}]}], "createdAt": "2024-11-29T09:14:47.316Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cubfe362c', 'bafyreic7edaide443e23hc2lebgiw34rojcat6iz7edosmh6tagg5inqve', '{"text": "Does anybody else keep a paper notebook for bugs? Thread below ⬇️", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-11-29T09:14:40.125Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cttpfevhv', 'bafyreif7edaide443e23hc2fxhtjf5erjnxv6jav2b2alvpkk3b6h67r6y', '{"text": "Nova versão publicada, com correções pequenas. Thread below ⬇️", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.record", "record": {"cid": "bafyreicvtra74pzlc47sb3a5pch7wq5qz7gxb6jaftqjwa2pskeqqkouje", "uri": "at://did:plc:lkkyobic7edaide443e23hc2/app.bsky.feed.post/3ew636eoce6og"}}, "langs": ["pt"], "createdAt": "2024-11-29T09:14:25.774Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3ctbstbnwh', 'bafyreic7edaide443e23hc2gh7uyxvdb4nf6isfb6rn3kkqco45t2xd4tu', '{"text": "Three hours of debugging, one missing comma. What would you have done?", "$type": "app.bsky.feed.post", "langs": ["pt"], "reply": {"root": {"cid": "bafyreih75u72zl6lhosr4edrhnnqbwwjblylq2vidli2ve5oph2ybx5gre", "uri": "at://did:plc:parxter67edaide443e23hc2/app.bsky.feed.post/3x4cseujksdrc"}, "parent": {"cid": "bafyreigiznnmylqkbs5td7u5twnfw7cpt6y2sl4ffs3nawipwuyrmckxye", "uri": "at://did:plc:parxter67edaide443e23hc2/app.bsky.feed.post/3zsr4lxbc6tuu"}}, "createdAt": "2024-11-29T09:14:07.013Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3csxctyopm', 'bafyreih7edaide443e23hc2s564ctynm75gltd5lhzbmvjyrvdyxfejpka', '{"text": "The herons are back at the canal 🪶 Photos when I''m home.", "$type": "app.bsky.feed.post", "langs": ["zh"], "createdAt": "2024-11-29T09:13:56.003Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3csnlbi2ln', 'bafyreid7edaide443e23hc2m74jvihgprbpdqc6ovtnlho74v4ll56be34', '{"text": "今天的晚霞太好看了 Photos when I''m home.", "$type": "app.bsky.feed.post", "langs": ["ja"], "createdAt": "2024-11-29T09:13:45.793Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3csdbjp4ah', 'bafyreid7edaide443e23hc2p3jwlfuat2pft3e3imqbcpzs7mtm7qo5l4i', '{"text": "La récolte de tomates est énorme cette année 🍅🍅 (I checked twice.)", "$type": "app.bsky.feed.post", "langs": ["ja"], "createdAt": "2024-11-29T09:13:34.988Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3crwizctsl', 'bafyreie7edaide443e23hc2mbsgjxe2gaj7bxvt2zbbirbk25qpigopgxa', '{"text": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉 “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["pt"], "createdAt": "2024-11-29T09:13:21.602Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3croltsqvb', 'bafyreic7edaide443e23hc2yii2tdruvalqryzyl47u3jexmaqemua4bb4', '{"text": "Three hours of debugging, one missing comma. Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["ja"], "createdAt": "2024-11-29T09:13:13.306Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cre766e2w', 'bafyreih7edaide443e23hc24iku3bey7bhiyqwijm4f4cdggdvi7kiwyhi', '{"text": "おはようございます。今日は雨ですね What would you have done?", "$type": "app.bsky.feed.post", "langs": ["de"], "reply": {"root": {"cid": "bafyreidlwyqoo5ix2zgblma7un32sluokzfo7oy6ikejmikatmhlsgwhri", "uri": "at://did:plc:xbefc4ww7edaide443e23hc2/app.bsky.feed.post/3xcfj2qh6aytz"}, "parent": {"cid": "bafyreidlwyqoo5ix2zgblma7un32sluokzfo7oy6ikejmikatmhlsgwhri", "uri": "at://did:plc:xbefc4ww7edaide443e23hc2/app.bsky.feed.post/3xcfj2qh6aytz"}}, "createdAt": "2024-11-29T09:13:02.405Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cr2krhefn', 'bafyreia7edaide443e23hc2afugmpk43pz44wuj5r7goq2bu6mydre45i4', '{"text": "Finally got the sourdough right. Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["de"], "createdAt": "2024-11-29T09:12:52.300Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lc3cqou5m2bn', 'bafyreih7edaide443e23hc2va6aazoo7emvje5tghhzspil524mb2ktib4', '{"text": "Finally got the sourdough right. Photos when I''m home.", "$type": "app.bsky.feed.post", "langs": ["en"], "createdAt": "2024-11-29T09:12:40.024Z"}', '3lrnqkbnt6222', true, '2026-11-24 16:40:53.190979+00', '2026-11-24 16:40:53.190979+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivzwm7mx6k', 'bafyreibb6b4cefefd7b7235auk535xsai7ywpgq3glmxfmhiwz7bihfw6a', '{"text": "@friend.sample.test Does anybody else keep a paper notebook for bugs? “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["ja"], "facets": [{"index": {"byteEnd": 19, "byteStart": 0}, "features": [{"did": "did:plc:7ldt7a7rb6b4cefefd7b7235", "$type": "app.bsky.richtext.facet#mention"}]}], "createdAt": "2024-05-27T22:17:50.143Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivzp2hrmst', 'bafyreihb6b4cefefd7b7235z2f6hgsgzdzjlf5errnfkpnw4x6jaqwocm4', '{"text": "おはようございます。今日は雨ですね What would you have done?", "$type": "app.bsky.feed.post", "langs": ["ja"], "createdAt": "2024-05-27T22:17:42.221Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivzchaetka', 'bafyreihb6b4cefefd7b7235gatznlq7v3t6rwghw2hzevj6jor6lvurujq', '{"text": "The herons are back at the canal 🪶", "$type": "app.bsky.feed.post", "langs": ["de"], "reply": {"root": {"cid": "bafyreigp23dq7hi2obofr4kbbho4t36loyscfh3pr2bgmrf6tbsxyhrlre", "uri": "at://did:plc:6v6wyueob6b4cefefd7b7235/app.bsky.feed.post/3a2d2jxz5oftb"}, "parent": {"cid": "bafyreigp23dq7hi2obofr4kbbho4t36loyscfh3pr2bgmrf6tbsxyhrlre", "uri": "at://did:plc:6v6wyueob6b4cefefd7b7235/app.bsky.feed.post/3a2d2jxz5oftb"}}, "createdAt": "2024-05-27T22:17:29.008Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivyxthywem', 'bafyreibb6b4cefefd7b7235q27bujj7ldmsxvh5pb3pkjzvetsmamwd4zy', '{"text": "Nova versão publicada, com correções pequenas. Photos when I''m home.", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.record", "record": {"cid": "bafyreidlntvjc5s4p2nbaimx6chzmynpyjeqoqm7t6fy3dkm4biarfrwum", "uri": "at://did:plc:lehlc5qcb6b4cefefd7b7235/app.bsky.feed.post/3z2f5t7ykavfo"}}, "langs": ["ja"], "createdAt": "2024-05-27T22:17:17.875Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivynmmp3gl', 'bafyreieb6b4cefefd7b7235r4bko2mdvfha3kuimtxrw6siaeuhxd6wvpe', '{"text": "おはようございます。今日は雨ですね What would you have done?", "$type": "app.bsky.feed.post", "langs": ["en"], "createdAt": "2024-05-27T22:17:07.164Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivyfwzl5g6', 'bafyreibb6b4cefefd7b7235tnttmg26s6srlfdwkvms4ctcohwwkq3w6za', '{"text": "今天的晚霞太好看了 Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "今天的晚霞太好看了", "image": {"ref": {"$link": "bafkreicj74ya5oexpvhtwlh5m4ulxwc2wxgxs6bliawpg7kr3nujlz7pq4"}, "size": 843067, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["pt"], "createdAt": "2024-05-27T22:16:59.117Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivxzjvpzub', 'bafyreifb6b4cefefd7b72357r5jth2wyazi3rxzwoaznpdmpqcbxjgegce', '{"text": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉 Thread below ⬇️ https://example.org/notes/398585", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.external", "external": {"uri": "https://example.org/notes/398585", "title": "おはようございます。今日は雨ですね", "description": "More tomorrow."}}, "langs": ["fr"], "facets": [{"index": {"byteEnd": 104, "byteStart": 72}, "features": [{"uri": "https://example.org/notes/398585", "$type": "app.bsky.richtext.facet#link"}]}], "createdAt": "2024-05-27T22:16:46.104Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivxr77jslh', 'bafyreieb6b4cefefd7b7235apwmaig3owf5bl2skz5driobbfcfahhn5uy', '{"text": "Nova versão publicada, com correções pequenas.", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "Reading about the harbour strike of 1926 again", "image": {"ref": {"$link": "bafkreib4p4u7w6z4n34flicyvt56h5hdu3aldoriipvb7wlj6crquu4y6y"}, "size": 623648, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["de"], "createdAt": "2024-05-27T22:16:37.365Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivxfolfjp4', 'bafyreieb6b4cefefd7b7235j2yjcafkudkl5vqdjthikleo7npnjycmkjq', '{"text": "Does anybody else keep a paper notebook for bugs? “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["de"], "reply": {"root": {"cid": "bafyreiccroznxcdkhqneztiwz5rfzxtkete7uja6bxszsatubc7fxzriwi", "uri": "at://did:plc:aqh4qiqlb6b4cefefd7b7235/app.bsky.feed.post/3ro76rqdugmpk"}, "parent": {"cid": "bafyreiccroznxcdkhqneztiwz5rfzxtkete7uja6bxszsatubc7fxzriwi", "uri": "at://did:plc:aqh4qiqlb6b4cefefd7b7235/app.bsky.feed.post/3ro76rqdugmpk"}}, "createdAt": "2024-05-27T22:16:25.285Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivx2w7tnv3', 'bafyreiab6b4cefefd7b7235pzpjlvztm55hbmazv7zvanquwwxcpt5s7hq', '{"text": "Finally got the sourdough right. Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["zh"], "createdAt": "2024-05-27T22:16:14.001Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:53.730417+00', '2026-11-24 16:40:53.730417+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivwstetxuu', 'bafyreigb6b4cefefd7b72352tervak5k2ef26zk5aya2ytj72tiwn4piei', '{"text": "The herons are back at the canal 🪶 Not sure I''d do it again 🫠", "$type": "app.bsky.feed.post", "langs": ["en"], "reply": {"root": {"cid": "bafyreialcsafyfqh764uvcwpc2ejfiu6537tjbrfmokjzickqh5vq3tq3m", "uri": "at://did:plc:tb4sinpib6b4cefefd7b7235/app.bsky.feed.post/3lc7z23yswqr4"}, "parent": {"cid": "bafyreiehlw4l3bq4wubadbt5lcb62ru3h4lchpix6g2xq2ob43bd2s6zka", "uri": "at://did:plc:tb4sinpib6b4cefefd7b7235/app.bsky.feed.post/3grmzzsj3yksa"}}, "createdAt": "2024-05-27T22:16:05.520Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivwfum62bj', 'bafyreibb6b4cefefd7b7235uxobtwqqbg34mrrzo3ovexelpr4dvgc56ri', '{"text": "@friend.sample.test The herons are back at the canal 🪶 “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["zh"], "facets": [{"index": {"byteEnd": 19, "byteStart": 0}, "features": [{"did": "did:plc:hgjcbxi2b6b4cefefd7b7235", "$type": "app.bsky.richtext.facet#mention"}]}], "createdAt": "2024-05-27T22:15:51.928Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivw6mghhf4', 'bafyreigb6b4cefefd7b7235vvw2tzq7zuh4tnjwc64nuodmgcd5j3fthwy', '{"text": "Reading about the harbour strike of 1926 again ありがとう", "$type": "app.bsky.feed.post", "langs": ["de"], "reply": {"root": {"cid": "bafyreigchv6pzp4lvlk546ouajs6gx2oq5pdhyfspznwfzf5sf5dlfw5ka", "uri": "at://did:plc:zupopxcwb6b4cefefd7b7235/app.bsky.feed.post/3w4wm4abgvwv6"}, "parent": {"cid": "bafyreigchv6pzp4lvlk546ouajs6gx2oq5pdhyfspznwfzf5sf5dlfw5ka", "uri": "at://did:plc:zupopxcwb6b4cefefd7b7235/app.bsky.feed.post/3w4wm4abgvwv6"}}, "createdAt": "2024-05-27T22:15:44.320Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivvuix2nao', 'bafyreicb6b4cefefd7b7235wvcwanxjdhadeja3jelbwilvomfwicnjbnu', '{"text": "Reading about the harbour strike of 1926 again Und jetzt Kaffee ☕", "$type": "app.bsky.feed.post", "langs": ["zh"], "reply": {"root": {"cid": "bafyreific3imbiav3bsr7vv7szdvoxqc45pi5rnzefd66cbz4mm3o5zizi", "uri": "at://did:plc:5c577rr4b6b4cefefd7b7235/app.bsky.feed.post/3swx2f4nnvodq"}, "parent": {"cid": "bafyreific3imbiav3bsr7vv7szdvoxqc45pi5rnzefd66cbz4mm3o5zizi", "uri": "at://did:plc:5c577rr4b6b4cefefd7b7235/app.bsky.feed.post/3swx2f4nnvodq"}}, "createdAt": "2024-05-27T22:15:33.721Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivviqrp347', 'bafyreihb6b4cefefd7b7235m64auew5wtczsf4qgrhm2jmlxhuas4huwd4', '{"text": "今天的晚霞太好看了 “Good enough” is a decision too.", "$type": "app.bsky.feed.post", "langs": ["pt"], "reply": {"root": {"cid": "bafyreidgxjalf2h7ync6lu6iybopxxelbr22a3ycvi6wuajncgb3tf2xqi", "uri": "at://did:plc:bhwk2fk2b6b4cefefd7b7235/app.bsky.feed.post/3xy3rfeqwv4ez"}, "parent": {"cid": "bafyreifry4y6qc2r3tq5qki6ystgv32x4msfmc73zrywh7jkrrpiwnmunm", "uri": "at://did:plc:bhwk2fk2b6b4cefefd7b7235/app.bsky.feed.post/3qtl2psc6qswi"}}, "createdAt": "2024-05-27T22:15:21.394Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivv4r23c7u', 'bafyreibb6b4cefefd7b7235igc6tiq6yomccc3wpiz6onjxhilpltn6q3q', '{"text": "La récolte de tomates est énorme cette année 🍅🍅", "$type": "app.bsky.feed.post", "langs": ["zh"], "createdAt": "2024-05-27T22:15:08.820Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivusoyiefl', 'bafyreieb6b4cefefd7b7235fzcauzx4mjqz7i4ctnei6onyfedq3bkwbuy', '{"text": "Reading about the harbour strike of 1926 again More tomorrow.", "$type": "app.bsky.feed.post", "langs": ["fr"], "createdAt": "2024-05-27T22:14:58.267Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivuiarzysv', 'bafyreicb6b4cefefd7b7235brzbphk4xm5aogquva3kvgofc7h4mdgtqni', '{"text": "Finally got the sourdough right. ありがとう", "$type": "app.bsky.feed.post", "langs": ["zh"], "reply": {"root": {"cid": "bafyreiarlk4xfr4jletf3taje3ybrbxoz3ny2hkp4zoh4x3k5iegdtzzem", "uri": "at://did:plc:iccnp6wfb6b4cefefd7b7235/app.bsky.feed.post/3msdls6wb22fr"}, "parent": {"cid": "bafyreidqz6u3w4aaferbqxwworh6cwi6uepzlgnfvczhfz7agxm2hinpwe", "uri": "at://did:plc:iccnp6wfb6b4cefefd7b7235/app.bsky.feed.post/3iizupsd73uft"}}, "createdAt": "2024-05-27T22:14:47.316Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivubfe362c', 'bafyreigb6b4cefefd7b7235o7forwegwkhub46ncshnnkjz75yxwfdboae', '{"text": "Reading about the harbour strike of 1926 again What would you have done?", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "Die Bahn hatte heute nur 4 Minuten Verspätung 🎉", "image": {"ref": {"$link": "bafkreibdjigrhinnqplul3xdaaaengfgqvbqm5gmfty4snoupft6luhfzi"}, "size": 504098, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["en"], "createdAt": "2024-05-27T22:14:40.125Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', '3ktivttpfevhv', 'bafyreidb6b4cefefd7b7235eb5yuru6ccjobt2h55qrv36uzimlwuldjge', '{"text": "The herons are back at the canal 🪶 Photos when I''m home.", "$type": "app.bsky.feed.post", "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "今天的晚霞太好看了", "image": {"ref": {"$link": "bafkreigbexvvwjeidx7xi5dktblzblxl7tso4rbm5p2a272aaehvk2rlby"}, "size": 799312, "$type": "blob", "mimeType": "image/jpeg"}, "aspectRatio": {"width": 2000, "height": 1500}}]}, "langs": ["en"], "createdAt": "2024-05-27T22:14:25.774Z"}', '3lrnqk7qs2222', true, '2026-11-24 16:40:54.081947+00', '2026-11-24 16:40:54.081947+00', DEFAULT);
INSERT INTO parity_alembic_version VALUES
	('0005');
INSERT INTO parity_failed_records OVERRIDING SYSTEM VALUE VALUES
	(1, 'did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lrnqkbnt622b', '2e09f6f56b298582895af10c3b6b7eac8657e6c349b6d9111358bfb237d27a61', 'lone_surrogate', 'a string holds one half of a surrogate pair, which is no character', '\x7b22757269223a2261743a2f2f6469643a706c633a78646e74376c33766f6b66737868776234686f63687661322f6170702e62736b792e666565642e706f73742f336c726e716b626e7436323262222c22636964223a2262616679726569626c63756f647a3235656476326a6a787533363262647666706b34646637786a6468707a766667676476676e766b717966717a34222c2276616c7565223a7b222474797065223a226170702e62736b792e666565642e706f7374222c2274657874223a226f6464222c22637265617465644174223a22323032342d30372d30315431323a30303a30302e3030305a222c226e616d65223a22615c756438303062227d7d', 'http://pds-2.sample', 1, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', 0),
	(2, 'did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', '3lrnqkapcm22b', 'd3d7cebd95a2949e74d828c304fe5d9bf5d07124dee8d10eb6f75946652085e1', 'nul_character', 'PostgreSQL cannot store the character U+0000 in jsonb', '\x7b22757269223a2261743a2f2f6469643a706c633a78646e74376c33766f6b66737868776234686f63687661322f6170702e62736b792e666565642e706f73742f336c726e716b6170636d323262222c22636964223a2262616679726569617a6467796d67377a61626f7276737a6562696d6f326d716d747075797137376f6b68346b78643275736d7276766b69676f7865222c2276616c7565223a7b222474797065223a226170702e62736b792e666565642e706f7374222c2274657874223a226f6464222c22637265617465644174223a22323032342d30372d30315431323a30303a30302e3030305a222c226e616d65223a22615c753030303062227d7d', 'http://pds-2.sample', 1, '2026-11-24 16:40:53.165923+00', '2026-11-24 16:40:53.165923+00', 0);
INSERT INTO parity_identities VALUES
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'user-a995616a43.sample.test', 'http://pds-1.sample', '2026-11-24 16:40:52.807833+00'),
	('did:plc:xdnt7l3vokfsxhwb4hochva2', 'user-5e59f0b02b.sample.test', 'http://pds-2.sample', '2026-11-24 16:40:53.09472+00'),
	('did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'user-ffc6535d0e.sample.test', 'http://pds-1.sample', '2026-11-24 16:40:53.661933+00');
INSERT INTO parity_import_states OVERRIDING SYSTEM VALUE VALUES
	(2, 'did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', 'completed', NULL, 12, 0, 0, '2026-11-24 16:40:52.742729+00', '2026-11-24 16:40:52.969071+00', NULL, '2026-11-24 16:40:52.742729+00', '2026-11-24 16:40:52.969071+00', 'http://pds-1.sample', '3lrnqk7qs2222', 1, 3, 0, NULL, NULL, NULL, NULL, false, NULL),
	(1, 'did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.post', 'completed', NULL, 30, 0, 0, '2026-11-24 16:40:52.742729+00', '2026-11-24 16:40:52.981128+00', NULL, '2026-11-24 16:40:52.742729+00', '2026-11-24 16:40:52.981128+00', 'http://pds-1.sample', '3lrnqk7qs2222', 1, 4, 0, NULL, NULL, NULL, NULL, false, NULL),
	(3, 'did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.post', 'completed', NULL, 30, 0, 2, '2026-11-24 16:40:53.078049+00', '2026-11-24 16:40:53.190979+00', NULL, '2026-11-24 16:40:53.078049+00', '2026-11-24 16:40:53.190979+00', 'http://pds-2.sample', '3lrnqkbnt6222', 1, 5, 0, NULL, NULL, NULL, NULL, false, NULL),
	(4, 'did:plc:xdnt7l3vokfsxhwb4hochva2', 'app.bsky.feed.like', 'pending', NULL, 0, 0, 0, NULL, NULL, NULL, '2026-11-24 16:40:53.273435+00', '2026-11-24 16:40:53.273435+00', NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, false, NULL),
	(5, 'did:plc:a2ujybnu5lqpflfmiqdv7z6v', 'app.bsky.feed.post', 'in_progress', '3ktivttpfevhv', 20, 0, 0, '2026-11-24 16:40:53.60992+00', NULL, NULL, '2026-11-24 16:40:53.60992+00', '2026-11-24 16:40:54.081947+00', 'http://pds-1.sample', '3lrnqk7qs2222', 1, 2, 0, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO parity_tombstones VALUES
	('did:plc:k5lhdxc5wtp2s7okwcxnxfmt', 'app.bsky.feed.like', '3l2aaaaaaaa2a', '3zzzzzzzzzz2a', '2026-11-24 16:40:54.210238+00');
INSERT INTO parity_walk_pages VALUES
	(5, 1, '{3ktivzwm7mx6k,3ktivzp2hrmst,3ktivzchaetka,3ktivyxthywem,3ktivynmmp3gl,3ktivyfwzl5g6,3ktivxzjvpzub,3ktivxr77jslh,3ktivxfolfjp4,3ktivx2w7tnv3}', '{}'),
	(5, 2, '{3ktivwstetxuu,3ktivwfum62bj,3ktivw6mghhf4,3ktivvuix2nao,3ktivviqrp347,3ktivv4r23c7u,3ktivusoyiefl,3ktivuiarzysv,3ktivubfe362c,3ktivttpfevhv}', '{}');
SELECT pg_catalog.setval('parity_failed_records_id_seq', 2, true);
SELECT pg_catalog.setval('parity_import_states_id_seq', 5, true);
SELECT pg_catalog.setval('parity_importers_id_seq', 3, true);
ALTER TABLE ONLY atproto_records
    ADD CONSTRAINT atproto_records_pkey PRIMARY KEY (did, collection, rkey);
ALTER TABLE ONLY parity_alembic_version
    ADD CONSTRAINT parity_alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY parity_announcements
    ADD CONSTRAINT parity_announcements_pkey PRIMARY KEY (did, collection);
ALTER TABLE ONLY parity_failed_records
    ADD CONSTRAINT parity_failed_records_did_collection_fingerprint_key UNIQUE (did, collection, fingerprint);
ALTER TABLE ONLY parity_failed_records
    ADD CONSTRAINT parity_failed_records_pkey PRIMARY KEY (id);
ALTER TABLE ONLY parity_identities
    ADD CONSTRAINT parity_identities_pkey PRIMARY KEY (did);
ALTER TABLE ONLY parity_import_states
    ADD CONSTRAINT parity_import_states_did_collection_key UNIQUE (did, collection);
ALTER TABLE ONLY parity_import_states
    ADD CONSTRAINT parity_import_states_pkey PRIMARY KEY (id);
ALTER TABLE ONLY parity_importers
    ADD CONSTRAINT parity_importers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY parity_tombstones
    ADD CONSTRAINT parity_tombstones_pkey PRIMARY KEY (did, collection, rkey);
ALTER TABLE ONLY parity_walk_pages
    ADD CONSTRAINT parity_walk_pages_pkey PRIMARY KEY (state_id, page);
CREATE INDEX parity_import_states_batch_idx ON parity_import_states USING btree (batch) WHERE (batch IS NOT NULL);
CREATE INDEX parity_import_states_id_idx ON parity_import_states USING btree (id) WHERE ((status = 'pending'::text) AND (batch IS NULL));
CREATE INDEX parity_import_states_next_attempt_at_idx ON parity_import_states USING btree (next_attempt_at) WHERE ((status = 'failed'::text) AND (batch IS NULL));
CREATE INDEX parity_import_states_status_idx ON parity_import_states USING btree (status) WHERE (status <> 'completed'::text);
