"""The AT Protocol as others speak it: DID documents, XRPC, pages of records, whom to contact and how fast.

Add here what is about strangers' servers. Knows neither PostgreSQL nor Dagster; hands records on as bytes. Every
request goes through `http.HttpClient`, which checks each address at the socket; every host's pace is in `ratelimit`.
"""
