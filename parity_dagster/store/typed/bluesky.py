"""The typed views of Bluesky's five main collections."""

from __future__ import annotations

from parity_dagster.store.typed.columns import Column
from parity_dagster.store.typed.view import TypedView

_CREATED_AT = Column(
    "created_at", "createdAt", "timestamp", "When its author's client says it was written; null if malformed"
)
_SUBJECT = (
    Column("subject", "subject.uri", comment="URI of the post"),
    Column("subject_cid", "subject.cid", comment="Version of the post"),
    Column("via", "via.uri", comment="URI of the repost through which the author met it"),
)

POSTS = TypedView(
    "posts",
    "app.bsky.feed.post",
    (
        _CREATED_AT,
        Column("text", "text", comment="What it says; empty if the post is only an image"),
        Column("langs", "langs", "texts", "Languages, as BCP 47 tags"),
        Column("reply_root", "reply.root.uri", comment="URI of the thread's first post; null if it is no reply"),
        Column("reply_parent", "reply.parent.uri", comment="URI of the post that it replies to"),
        Column("embed_type", "embed.$type", comment="NSID of what is embedded: images, video, a link, a quote"),
        Column("quoted", "embed.record.uri", comment="URI of the record that it quotes"),
        Column("tags", "tags", "texts", "Hashtags besides those in the text"),
        Column("facets", "facets", "json", "Mentions, links and hashtags within the text"),
        Column("labels", "labels", "json", "Content warnings that the author has set"),
    ),
    "Posts (app.bsky.feed.post)",
    "https://bsky.app/profile/{did}/post/{rkey}",
)

LIKES = TypedView("likes", "app.bsky.feed.like", (_CREATED_AT, *_SUBJECT), "Likes (app.bsky.feed.like)")

REPOSTS = TypedView("reposts", "app.bsky.feed.repost", (_CREATED_AT, *_SUBJECT), "Reposts (app.bsky.feed.repost)")

FOLLOWS = TypedView(
    "follows",
    "app.bsky.graph.follow",
    (_CREATED_AT, Column("subject", "subject", comment="DID of the account that is followed")),
    "Follows (app.bsky.graph.follow)",
)

PROFILES = TypedView(
    "profiles",
    "app.bsky.actor.profile",
    (
        _CREATED_AT,
        Column("display_name", "displayName", comment="Name shown beside the handle"),
        Column("description", "description", comment="What the account says about itself"),
        Column("avatar", "avatar.ref.$link", comment="CID of the picture"),
        Column("banner", "banner.ref.$link", comment="CID of the banner"),
        Column("pinned_post", "pinnedPost.uri", comment="URI of the pinned post"),
        Column("labels", "labels", "json", "Labels that the account has given itself"),
    ),
    "Profiles (app.bsky.actor.profile); a well-formed account has one, under the record key self",
    "https://bsky.app/profile/{did}",
)

BLUESKY_VIEWS = (POSTS, LIKES, REPOSTS, FOLLOWS, PROFILES)
"""All of them."""
