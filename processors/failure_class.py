"""Which class a failure is of: what its type, code and text say beyond doubt, else its HTTP status, else weaker words. Pure.

Causes of the classes and what to do: `query_api.failures.causes`. The words come from what upstream APIs, HTTP libraries and
agent protocols really answer; `tests/data/upstream_errors.ndjson` holds some hundred such answers with the class of each.

Texts are compared in one form: words in lower case between single blanks, camel case taken apart, punctuation dropped. So
`RateLimitExceeded`, `rate_limit_exceeded` and `Rate limit exceeded` are one phrase. Phrases are looked for by their first word,
and the few regular expressions stand behind a word, because a text costs some microseconds of the worker.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final


def _phrases(text: str) -> tuple[str, ...]:
    """Read phrases parted by commas: each begins with a whole word, and ends with one where a full stop stands behind it.

    `^` is the beginning of the text.
    """
    return tuple(f" {one.strip().replace('.', ' ')}" for one in " ".join(text.split()).split(","))


# An error says what it is at its beginning or, as a traceback does, at its end.
_HEAD_CHARS: Final = 2_000
_TAIL_CHARS: Final = 500

_CLASS_OF_STATUS: Final[Mapping[int, str]] = {
    **dict.fromkeys(range(400, 500), "invalid_input"),
    **dict.fromkeys(range(500, 600), "upstream_error"),
    # What is not there, is in another state, is to be paid, or is forbidden by law: no fault of the input as such.
    **dict.fromkeys((402, 404, 405, 409, 410, 412, 418, 423, 424, 451), "other"),
    **dict.fromkeys((401, 440, 498), "unauthorized"),
    403: "forbidden",
    # A proxy of ours asks who we are.
    407: "network",
    **dict.fromkeys((408, 499, 504, 522, 524, 598, 599), "timeout"),
    **dict.fromkeys((420, 429), "rate_limited"),
}
# JSON-RPC and MCP; the incumbent's own.
_CLASS_OF_CODE: Final[Mapping[str, str]] = {
    "-32700": "invalid_input",
    "-32600": "invalid_input",
    "-32601": "tool_not_found",
    "-32602": "invalid_input",
    "-32603": "upstream_error",
    "-32001": "timeout",
    "1803": "no_connected_account",
    "1810": "no_connected_account",
    "1812": "no_connected_account",
}

# Beyond doubt: they hold whatever the status says, for upstreams answer an expired token with 400, and a rate limit with 403.
_PLAIN: Final = {
    "other": _phrases("resource missing., card declined, does not exist or you do not have, does not exist or not authorized"),
    "upstream_error": _phrases("code unavailable., upstream connect error, overloaded error"),
    "no_connected_account": _phrases(
        """
        no connected account, connected account not found, no active connected account, no active connection found, router v2 no
        active connection, no connection found for, could not find a connection with app, connected account entity id mismatch,
        does not match the connected account, account is not connected, account not connected, no connection for toolkit, has
        not connected, please connect your
        """
    ),
    "rate_limited": _phrases(
        """
        rate limit, ratelimit, ratelimited, ratelimits, too many request, too many calls, too many write operations, throttle,
        throttled, throttling, throttles, quota exceeded, quota has been exceeded, quota was exceeded, exceeded your quota,
        exceeded your current quota, insufficient quota, over quota, resource exhausted, rate exceeded, request rate, slow
        down., limit exceeded error., daily limit exceeded, request limit, requests limit exceeded, usage limit, requests per
        second, requests per sec, requests per minute, requests per min, requests per hour, requests per day, requests per
        month, requests per 1, requests per 2, requests per 3, requests per 5, requests per 6, calls per second, tokens per min,
        rolling limit, concurrency limit, activity limit reached, provisioned throughput, credit balance is too low,
        insufficient credits, not enough credits, out of credits, made too many, hourly limit, monthly limit, too many requests
        recently, abuse detection mechanism, message limit exceeded, resource has been exhausted, limit exceeded exception,
        quota limit reached, exceeded your api quota, exceeded your daily quota, call limit exceeded, max requests reached, too
        many attempts, reached the maximum number of requests
        """
    ),
    "unauthorized": _phrases(
        """
        invalid grant, invalid auth, not authed., account inactive., token expired, token has expired, token is expired, token
        was expired, token has been expired, token revoked, token has been revoked, token was revoked, token has been
        invalidated, expired token, expired access token, expired access refresh token, refresh token has expired, used to make
        this call expired, token is invalid, token invalid, invalid token, invalid access token, invalid api token, invalid
        bearer token, invalid oauth token, invalid oauth access token, invalid refresh token, invalid personal access token,
        access token has expired, validating access token, grant has expired, jwt expired, invalid api key, invalid x api key,
        incorrect api key, wrong api key, expired api key, api key expired, api key has been revoked, api key not valid, api key
        is invalid, missing api key, no api key provided, invalid credentials, bad credentials, username and password not
        accepted, username or password, email or password, authentication failed, authenticationfailed, authentication required,
        authentication is required, requires authentication, required authentication credential, authentication credentials not
        found, missing authentication, missing authorization, authorization header is required, required header authorization,
        signature has expired, using password yes, using password no, authentication error., authentication credentials were
        not, not authenticated, must be authenticated, must be logged in, not logged in, unauthenticated, session expired,
        session has expired, session timed out, session has timed out, log in again, please log in, please sign in, sign in
        first, need to sign in, need to log in, oauth token not found, invalid session id, invalid login, invalid client token
        id, invalid access key id, access key id you provided, security token included in the request is, signature does not
        match, signature we, unrecognized client, unable to locate credentials, no credentials error, token validation failure,
        token is missing or expired, requires a valid api key, error invalid apikey, invalid client., oauth client was deleted,
        deleted client., request time too skewed, could not authenticate you, must use multi factor, interaction required.
        """
    ),
    "forbidden": _phrases(
        """
        missing scope, insufficient scope, insufficient client scope, insufficient authentication scope, required scope, invalid
        scope, scope permissions on the request, insufficient permission, missing permission, missing or insufficient
        permission, insufficient privilege, insufficient access, insufficient file permission, permission denied, not have
        permission, not have sufficient, not have proper permission, not have the required permission, not have access, dont
        have permission, dont have access, doesnt have permission, doesnt have access, permissions to perform, resource not
        accessible by, not authorized to, restricted resource, restricted action, authorization request denied, unauthorized
        operation, access denied, access is denied, access not configured, has not been used in project, not consented to,
        missing access., must have admin, must be an admin, requires higher privileges, scopes are insufficient, invalid
        permissions, not allowed token type, is not enabled for this organization, oauth token access to this organization, no
        permission., access not granted, requires merchant approval, not authorized the application, hasnt authorized the
        application
        """
    ),
}

# What a failure without a status, or whose status says nothing, most likely is.
_LIKELY: Final = {
    "timeout": _phrases(
        """
        timed out, timeout, gateway time out, maximum execution time, deadline exceeded, etimedout, esockettimedout,
        econnaborted, took too long, exceeded the time limit, exceeded time limit
        """
    ),
    "network": _phrases(
        """
        econnrefused, econnreset, enotfound, eai again, ehostunreach, enetunreach, epipe, broken pipe, socket hang up, other
        side closed, und err socket, fetch failed, failed to fetch, network error, err network, network request failed, network
        is unreachable, not connected to the internet, no route to host, connection refused, connection reset, connection
        aborted, connection closed, connection error, connection attempts failed, connection was closed, connection to stripe,
        connect error, connector error, cannot connect, could not connect, failed to connect, failed to establish a new
        connection, getaddrinfo, name resolution, failed to resolve, could not resolve, name not resolved, unknown host, err
        connection, name or service not known, nodename nor servname, no such host, certificate verify failed, certificate
        signed by unknown, unable to get local issuer, self signed cert, unable to verify the first certificate, certificate has
        expired, cert has expired, certificates altnames, cert altname invalid, pkix path building failed, ssl error, sslerror,
        ssleoferror, ssl routines, tls handshake, ssl handshake, remote end closed, server disconnected, remote protocol error,
        premature close, unexpected eof, ^ get eof., ^ post eof., ^ put eof., ^ patch eof., ^ delete eof., empty reply from
        server, server closed the connection, server has gone away, lost connection to, not connected to redis, not connected to
        broker, httpx read error, httpcore read error, proxy error, proxy authentication required, alert protocol version, httpx
        write error, client payload error, payload is not completed, incomplete read, failed to verify certificate, certificate
        is valid for, sent goaway, stream error stream id, ^ terminated., connection could not be established, actively refused
        it, forcibly closed by, err cert, internet disconnected, connection unexpectedly closed, smtp server disconnected, not
        connected to mongodb
        """
    ),
    "unauthorized": _phrases(
        """
        unauthorized, unauthorised, invalid session., invalid password, invalid username, api key is required, ^ token is
        required., login failed, authorization failed, ^ authenticate., invalid oauth, invalid jwt, jwt malformed, invalid
        signature, invalid user credentials, invalid security token, invalid subscription key, invalid app token, ^ invalid
        key., key provided is not valid, key you provided, access token is required, access token is missing, authorization
        header missing, no authorization token, credentials are invalid, signature verification failed, with given credentials,
        login incorrect, login required, login is required, consent required, no access token, need to be logged in, please
        authenticate, token is not valid, ^ auth failed, authentication failure, unable to authenticate, could not authenticate,
        api key invalid, api key not found, unknown api key, unrecognized api key, api key is not valid, apikey invalid, service
        account credentials, invalid secret key, bearer token is required, authentication token is required, missing bearer
        token, required parameter refresh token
        """
    ),
    "forbidden": _phrases(
        """
        not authorized., ^ forbidden., is forbidden., access forbidden, forbidden by, forbidden for, you are not allowed to,
        operation not permitted, lacks permission, you are not permitted, ^ not permitted., not authorised to, insufficient
        rights, insufficient role, requires admin privileges, denied on resource
        """
    ),
    "upstream_error": _phrases(
        """
        internal server error, internal error, bad gateway, service unavailable, service is unavailable, temporarily
        unavailable, server unavailable, server is too busy, backend error, server error, on our end., on our side., server had
        an error, overloaded, fatal error, unknown exception., internal received rst stream, code internal., something went
        wrong, unexpected error occurred, unknown error has occurred, under maintenance, down for maintenance
        """
    ),
    "invalid_input": _phrases(
        """
        unprocessable, validation error, ^ invalid., cannot be after, cannot be before, cannot be empty, cannot be blank, cannot
        be null, validation exception, validation failed, failed validation, schema validation, type validation, bad request,
        malformed, invalid request, invalid input, invalid argument, invalid parameter, invalid param, invalid value, invalid
        format, invalid field, invalid type, invalid json, invalid integer, invalid blocks, invalid recipient, invalid email,
        invalid date, invalid filter, invalid query, not a valid, were not valid, missing required, required field, field
        required, fields are missing, required parameter, required property, missing field, missing param, missing value,
        missing argument, parameter missing, parameter invalid, is required., must be a., must be an., must be one of, must be
        between, must be at, must be of, must be in., must be greater, must be less, must be string, must be integer, must be
        number, must be positive, must be set, must be provided, must be valid, must be unique, must be specified, must be
        defined, must not be., must have., should be a., should be defined, out of range, too long, text too long, context
        length, unknown field, unknown argument, unexpected keyword argument, required positional argument, is not of type, no
        such column, parse error, problems parsing, syntax error., sql syntax, wrongtype operation, undefined column.,
        unexpected token, expected string received, expected number received, expected type, not match format, in the jql query,
        an empty message, zod error, doesnt exist on type, cannot query field, is not defined in the schema, address is invalid,
        address is not valid, unexpected parameter
        """
    ),
}

_CLASSES: Final = (*_PLAIN, *_LIKELY)


def _by_first_word() -> Mapping[str, Sequence[tuple[int, str]]]:
    """Return for each word the phrases that begin with it, with the place of their class in `_CLASSES`."""
    found: dict[str, list[tuple[int, str]]] = {}
    for rank, phrases in enumerate((*_PLAIN.values(), *_LIKELY.values())):
        for phrase in phrases:
            found.setdefault(phrase.split()[0], []).append((rank, phrase))
    return found


_BY_FIRST_WORD: Final = _by_first_word()

# `Tool X not found`, `unknown action`: at most a word between, for a tool may well say of something else that it is missing.
_TOOL: Final = re.compile(
    r"\b(?:tool|action)\b(?: named| with)?(?: slug)?[ :]*[\"'`]?(?:[\w.-][\w.:-]{0,255})?[\"'`]?(?: is| was)? ?"
    r"(?:not[ _]?found|does(?: not|n't) exist|not registered|not (?:available|enabled) (?:in|for))"
    r"|\b(?:unknown|no such|retrieve) (?:tool|action)\b|\bno (?:tool|action) (?:named|called)\b"
    r"|\btool[ _]?not[ _]?found|^method[ _]not[ _]found|-32601\b",
    re.IGNORECASE,
)
_NOT_CONNECTED: Final = re.compile(
    r" not connected to (?!(?:the |an? |any )?"
    r"(?:internet|network|server|database|vpn|power|voice|redis|mongo|mongodb|broker|socket|peer)\b)"
)
# `requires the pages_read_engagement permission`
_NEEDS: Final = re.compile(r" requires? (?:[a-z0-9]+ ){1,8}?(?:permission|scope) ")
_FORBIDDEN: Final = list(_PLAIN).index("forbidden")
# Words that say the opposite of what they seem to.
_HARMLESS: Final = re.compile(
    r" (?:page|pagination|sync|next|continuation|cursor|csrf|registration|device|delta|skip) token"
    r"|(?<= )(?:timeout|rate limit|request limit)(?= (?:must|should|is required|is invalid|is not a valid|parameter|value))"
    r"|(?<= argument )timeout"
    r"| you must be (?=an? )| file permission denied| could not resolve to an? | mongo server error"
)
_SUSPECT: Final = (" token", "timeout ", " limit ", " you must be ", " file permission ", " resolve to ", " mongo server ")
_ADDRESS: Final = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s\"'<>)\]}]*")
# Statuses and words of a thing that is missing, there already or gone; in JSON, quotes hold more than names.
_OF_A_THING: Final = frozenset((404, 409, 410))
_THING: Final = re.compile(
    r"\b(?:not (?:be )?found|already exists|does(?: not|n't) exist|no (?:results|\w+ (?:named|matches|called))"
    r"|cannot query field|is not defined)\b",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"\B(?:'[^'\n]{1,80}'|\"[^\"\n]{1,80}\"|`[^`\n]{1,80}`)\B")
_JSON: Final = re.compile(r"[{,]\s*[\"'][\w.-]{1,80}[\"']\s*:")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Apostrophes, typographic ones too, join what they part: `doesn't` is a word.
_BLANKS: Final = {**{number: " " for number in range(128) if not chr(number).isalnum()}, ord("'"): None, 0x2019: None}

# Digits are 0 to 9: what else Python calls a digit, it may not be able to read as a number.
_STATUS: Final = re.compile(r"(?<![0-9])[45][0-9][0-9](?![0-9])")
_REASON: Final = (
    r"(?:bad request|unauthori[sz]ed|payment required|forbidden|not found|method not|not acceptable|proxy authentication"
    r"|request|conflict|gone|precondition|payload|uri|unsupported|unprocessable|locked|too many|internal|not implemented"
    r"|bad gateway|service unavailable|gateway time-?out|client error|server error|error|response)\b"
)
# A number is a status where it is called one, or where it stands alone at a place where statuses stand.
_STATUS_IN_TEXT: Final = re.compile(
    r"(?:\bstatus(?:[ _]?code)?|\bcode(?=[\"']? ?[:=])"
    r"|(?:\b(?:error|response|http|result|with|returned|got)[ _-]?|^|[({\[,;] ?)code"
    r"|\bhttp(?:[ _]?(?:status)?error)?(?:/\d(?:\.\d)?)?)[\"']?[ :=]{1,3}[\"']?"
    r"([45][0-9][0-9])\b(?![.,]?\d| (?:is|was|are|were|has|have|items|rows|records|results)\b)"
    r"|(?:^|\berror[ :]{1,2}|[(>\"']|\b(?:returned|got|(?:responded|replied) with) )([45][0-9][0-9])"
    r"(?!\) (?:is|was|are|were|has|have|will|does|not)\b)"
    rf"(?=\s*$|\s*[:;)\]\"'{{|]|,(?!\s*\d)|\.(?:\s|$)|\s+[-–—]\s|\s+{_REASON})",  # noqa: RUF001 - dashes of all kinds
    re.IGNORECASE,
)
# Of registered statuses, and of proxies and services that are often between; another number is a code of something else.
_STATUSES: Final = frozenset(
    (
        *(*range(400, 427), 428, 429, 430, 431, 440, 444, 449, 450, 451, 460, 463, 464, *range(494, 500)),
        *(*range(500, 512), *range(520, 531), 540, 561, 598, 599),
    )
)
# What a mail server says: its three digits are no HTTP status.
_MAIL: Final = re.compile(r"[\s,]*b?[\"']?[245]\.\d{1,3}\.\d{1,3}\b")


def http_status(code: str, kind: str, message: str) -> int:
    """Return the HTTP status a failure names, 0 if it names none."""
    texts: tuple[str, ...] = (code, kind, _excerpt(message))
    if _STATUS.fullmatch(code):
        # `(#506) Duplicate status message`: an error's own number.
        if int(code) in _STATUSES and f"(#{code})" not in message:
            return int(code)
        texts = texts[1:]
    for text in texts:
        # Most texts hold no such number at all.
        if _STATUS.search(text) and (found := _STATUS_IN_TEXT.search(text)):
            status = int(found[1] or found[2])
            return status if status in _STATUSES and not _MAIL.match(text, found.end()) else 0
    return 0


@lru_cache(maxsize=16_384)
def failure_class(code: str, kind: str, message: str, status: int) -> str:
    """Return one of the classes of SURFACE 7.

    In this order: a tool or an account that is missing; what type and code, then the text, say beyond doubt; the status; a
    protocol's code; what type and code, then the text, make likely.
    """
    text = _excerpt(message)
    said = _words(_told(text, status))
    if _misses_tool(text, said):
        return "tool_not_found"
    if " not connected to " in said and _NOT_CONNECTED.search(said):
        return "no_connected_account"
    rank = _rank(said)
    if rank > _FORBIDDEN and " require" in said and _NEEDS.search(said):
        rank = _FORBIDDEN
    if kind or code:
        named = _words(f"{kind} {code}")
        if _misses_tool(f"{kind} {code}", named):
            return "tool_not_found"
        by_name = _rank(named)
        # A name decides over a text, unless only the text is beyond doubt.
        rank = by_name if by_name < len(_PLAIN) or (len(_PLAIN) <= rank and by_name < len(_CLASSES)) else rank
    by_status = "" if rank < len(_PLAIN) else _CLASS_OF_STATUS.get(status) or _CLASS_OF_CODE.get(code)
    return by_status or (_CLASSES[rank] if rank < len(_CLASSES) else "other")


def _excerpt(message: str) -> str:
    if len(message) <= _HEAD_CHARS + _TAIL_CHARS:
        return message
    return f"{message[:_HEAD_CHARS]} {message[-_TAIL_CHARS:]}"


def _told(text: str, status: int) -> str:
    """Leave out what a text only names: addresses, and the quoted names of what is missing or there already."""
    if "://" in text:
        text = _ADDRESS.sub("", text)
    if (status in _OF_A_THING or _THING.search(text)) and not _JSON.search(text):
        text = _NAME.sub(" ", text)
    return text


def _words(text: str) -> str:
    """Return a text's words in lower case, each between single blanks."""
    words = f" ^ {' '.join(_CAMEL.sub(' ', text).translate(_BLANKS).lower().split())} "
    return _HARMLESS.sub(" - ", words) if any(suspect in words for suspect in _SUSPECT) else words


def _misses_tool(text: str, words: str) -> bool:
    return (
        any(part in words for part in (" tool", " action", "^ method not found", " 32601 ")) and _TOOL.search(text) is not None
    )


def _rank(words: str) -> int:
    """Return the place in `_CLASSES` of the first class that has a phrase here; their number if none has."""
    best = len(_CLASSES)
    for word in words.split():
        for rank, phrase in _BY_FIRST_WORD.get(word, ()):
            if rank < best and phrase in words:
                best = rank
    return best
