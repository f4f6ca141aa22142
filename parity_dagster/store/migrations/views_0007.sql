-- The function and the typed views that revisions 0003 and 0007 make; a line `-- view NAME` begins what makes that view.
-- Never changed: another definition is another revision's.

-- After the regular expression only the month's length can make the cast fail. So no exception has to be caught, which
-- would cost a subtransaction per row and forbid parallel queries.
CREATE OR REPLACE FUNCTION parity_timestamp(given text) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
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
$$;
COMMENT ON FUNCTION parity_timestamp IS 'A datetime of the AT Protocol as a time; null if it is malformed';

-- view posts
CREATE OR REPLACE VIEW posts AS
SELECT did,
       rkey,
       uri,
       cid,
       CASE WHEN jsonb_typeof(value -> 'createdAt') = 'string' THEN parity_timestamp(value ->> 'createdAt') END AS created_at,
       CASE WHEN jsonb_typeof(value -> 'text') = 'string' THEN value ->> 'text' END AS text,
       CASE WHEN jsonb_typeof(value -> 'langs') = 'array' THEN ARRAY(SELECT item #>> '{}' FROM jsonb_array_elements(value -> 'langs') item WHERE jsonb_typeof(item) = 'string') END AS langs,
       CASE WHEN jsonb_typeof(value #> '{reply,root,uri}') = 'string' THEN value #>> '{reply,root,uri}' END AS reply_root,
       CASE WHEN jsonb_typeof(value #> '{reply,parent,uri}') = 'string' THEN value #>> '{reply,parent,uri}' END AS reply_parent,
       CASE WHEN jsonb_typeof(value #> '{embed,$type}') = 'string' THEN value #>> '{embed,$type}' END AS embed_type,
       CASE WHEN jsonb_typeof(value #> '{embed,record,uri}') = 'string' THEN value #>> '{embed,record,uri}' END AS quoted,
       CASE WHEN jsonb_typeof(value -> 'tags') = 'array' THEN ARRAY(SELECT item #>> '{}' FROM jsonb_array_elements(value -> 'tags') item WHERE jsonb_typeof(item) = 'string') END AS tags,
       value -> 'facets' AS facets,
       value -> 'labels' AS labels,
       active,
       first_seen_at,
       updated_at
  FROM atproto_records
 WHERE collection = 'app.bsky.feed.post';
COMMENT ON COLUMN posts.did IS E'Account';
COMMENT ON COLUMN posts.rkey IS E'Record key';
COMMENT ON COLUMN posts.uri IS E'at://did/collection/rkey';
COMMENT ON COLUMN posts.cid IS E'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN posts.created_at IS E'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN posts.text IS E'What it says; empty if the post is only an image';
COMMENT ON COLUMN posts.langs IS E'Languages, as BCP 47 tags';
COMMENT ON COLUMN posts.reply_root IS E'URI of the thread''s first post; null if it is no reply';
COMMENT ON COLUMN posts.reply_parent IS E'URI of the post that it replies to';
COMMENT ON COLUMN posts.embed_type IS E'NSID of what is embedded: images, video, a link, a quote';
COMMENT ON COLUMN posts.quoted IS E'URI of the record that it quotes';
COMMENT ON COLUMN posts.tags IS E'Hashtags besides those in the text';
COMMENT ON COLUMN posts.facets IS E'Mentions, links and hashtags within the text';
COMMENT ON COLUMN posts.labels IS E'Content warnings that the author has set';
COMMENT ON COLUMN posts.active IS E'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN posts.first_seen_at IS E'When the record was stored first';
COMMENT ON COLUMN posts.updated_at IS E'When this version was stored';
COMMENT ON VIEW posts IS E'Posts (app.bsky.feed.post) [parity_dagster f299522d55f5]';

-- view likes
CREATE OR REPLACE VIEW likes AS
SELECT did,
       rkey,
       uri,
       cid,
       CASE WHEN jsonb_typeof(value -> 'createdAt') = 'string' THEN parity_timestamp(value ->> 'createdAt') END AS created_at,
       CASE WHEN jsonb_typeof(value #> '{subject,uri}') = 'string' THEN value #>> '{subject,uri}' END AS subject,
       CASE WHEN jsonb_typeof(value #> '{subject,cid}') = 'string' THEN value #>> '{subject,cid}' END AS subject_cid,
       CASE WHEN jsonb_typeof(value #> '{via,uri}') = 'string' THEN value #>> '{via,uri}' END AS via,
       active,
       first_seen_at,
       updated_at
  FROM atproto_records
 WHERE collection = 'app.bsky.feed.like';
COMMENT ON COLUMN likes.did IS E'Account';
COMMENT ON COLUMN likes.rkey IS E'Record key';
COMMENT ON COLUMN likes.uri IS E'at://did/collection/rkey';
COMMENT ON COLUMN likes.cid IS E'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN likes.created_at IS E'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN likes.subject IS E'URI of the post';
COMMENT ON COLUMN likes.subject_cid IS E'Version of the post';
COMMENT ON COLUMN likes.via IS E'URI of the repost through which the author met it';
COMMENT ON COLUMN likes.active IS E'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN likes.first_seen_at IS E'When the record was stored first';
COMMENT ON COLUMN likes.updated_at IS E'When this version was stored';
COMMENT ON VIEW likes IS E'Likes (app.bsky.feed.like) [parity_dagster cf028fc68a7b]';

-- view reposts
CREATE OR REPLACE VIEW reposts AS
SELECT did,
       rkey,
       uri,
       cid,
       CASE WHEN jsonb_typeof(value -> 'createdAt') = 'string' THEN parity_timestamp(value ->> 'createdAt') END AS created_at,
       CASE WHEN jsonb_typeof(value #> '{subject,uri}') = 'string' THEN value #>> '{subject,uri}' END AS subject,
       CASE WHEN jsonb_typeof(value #> '{subject,cid}') = 'string' THEN value #>> '{subject,cid}' END AS subject_cid,
       CASE WHEN jsonb_typeof(value #> '{via,uri}') = 'string' THEN value #>> '{via,uri}' END AS via,
       active,
       first_seen_at,
       updated_at
  FROM atproto_records
 WHERE collection = 'app.bsky.feed.repost';
COMMENT ON COLUMN reposts.did IS E'Account';
COMMENT ON COLUMN reposts.rkey IS E'Record key';
COMMENT ON COLUMN reposts.uri IS E'at://did/collection/rkey';
COMMENT ON COLUMN reposts.cid IS E'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN reposts.created_at IS E'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN reposts.subject IS E'URI of the post';
COMMENT ON COLUMN reposts.subject_cid IS E'Version of the post';
COMMENT ON COLUMN reposts.via IS E'URI of the repost through which the author met it';
COMMENT ON COLUMN reposts.active IS E'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN reposts.first_seen_at IS E'When the record was stored first';
COMMENT ON COLUMN reposts.updated_at IS E'When this version was stored';
COMMENT ON VIEW reposts IS E'Reposts (app.bsky.feed.repost) [parity_dagster ebc8238798b9]';

-- view follows
CREATE OR REPLACE VIEW follows AS
SELECT did,
       rkey,
       uri,
       cid,
       CASE WHEN jsonb_typeof(value -> 'createdAt') = 'string' THEN parity_timestamp(value ->> 'createdAt') END AS created_at,
       CASE WHEN jsonb_typeof(value -> 'subject') = 'string' THEN value ->> 'subject' END AS subject,
       active,
       first_seen_at,
       updated_at
  FROM atproto_records
 WHERE collection = 'app.bsky.graph.follow';
COMMENT ON COLUMN follows.did IS E'Account';
COMMENT ON COLUMN follows.rkey IS E'Record key';
COMMENT ON COLUMN follows.uri IS E'at://did/collection/rkey';
COMMENT ON COLUMN follows.cid IS E'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN follows.created_at IS E'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN follows.subject IS E'DID of the account that is followed';
COMMENT ON COLUMN follows.active IS E'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN follows.first_seen_at IS E'When the record was stored first';
COMMENT ON COLUMN follows.updated_at IS E'When this version was stored';
COMMENT ON VIEW follows IS E'Follows (app.bsky.graph.follow) [parity_dagster 4f2c9e890237]';

-- view profiles
CREATE OR REPLACE VIEW profiles AS
SELECT did,
       rkey,
       uri,
       cid,
       CASE WHEN jsonb_typeof(value -> 'createdAt') = 'string' THEN parity_timestamp(value ->> 'createdAt') END AS created_at,
       CASE WHEN jsonb_typeof(value -> 'displayName') = 'string' THEN value ->> 'displayName' END AS display_name,
       CASE WHEN jsonb_typeof(value -> 'description') = 'string' THEN value ->> 'description' END AS description,
       CASE WHEN jsonb_typeof(value #> '{avatar,ref,$link}') = 'string' THEN value #>> '{avatar,ref,$link}' END AS avatar,
       CASE WHEN jsonb_typeof(value #> '{banner,ref,$link}') = 'string' THEN value #>> '{banner,ref,$link}' END AS banner,
       CASE WHEN jsonb_typeof(value #> '{pinnedPost,uri}') = 'string' THEN value #>> '{pinnedPost,uri}' END AS pinned_post,
       value -> 'labels' AS labels,
       active,
       first_seen_at,
       updated_at
  FROM atproto_records
 WHERE collection = 'app.bsky.actor.profile';
COMMENT ON COLUMN profiles.did IS E'Account';
COMMENT ON COLUMN profiles.rkey IS E'Record key';
COMMENT ON COLUMN profiles.uri IS E'at://did/collection/rkey';
COMMENT ON COLUMN profiles.cid IS E'Content identifier of this version; null when the PDS names none';
COMMENT ON COLUMN profiles.created_at IS E'When its author''s client says it was written; null if malformed';
COMMENT ON COLUMN profiles.display_name IS E'Name shown beside the handle';
COMMENT ON COLUMN profiles.description IS E'What the account says about itself';
COMMENT ON COLUMN profiles.avatar IS E'CID of the picture';
COMMENT ON COLUMN profiles.banner IS E'CID of the banner';
COMMENT ON COLUMN profiles.pinned_post IS E'URI of the pinned post';
COMMENT ON COLUMN profiles.labels IS E'Labels that the account has given itself';
COMMENT ON COLUMN profiles.active IS E'False while the account is deactivated, suspended or taken down';
COMMENT ON COLUMN profiles.first_seen_at IS E'When the record was stored first';
COMMENT ON COLUMN profiles.updated_at IS E'When this version was stored';
COMMENT ON VIEW profiles IS E'Profiles (app.bsky.actor.profile); a well-formed account has one, under the record key self [parity_dagster be7139536e7c]';
