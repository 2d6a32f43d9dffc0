-- What a failed call says, without what differs from call to call: `flight HAT030 not available on date 2024-05-13` becomes
-- `flight <*> not available on date <*>`. Failures are grouped by it; '' where nothing failed. Worked out by ClickHouse alone, when
-- a row is written (of a row older than the column: when it is read, or merged), so there is one rule, and a group is found
-- without touching a text. A change of the rule is a MODIFY COLUMN in a new file, and MATERIALIZE COLUMN for what is written.
--
-- Read from the inside out. RE2 cannot look ahead, and captures cost ten times as much as none, so digits that are part of the
-- error (a status, an error's code) first become control characters, of which the text holds none, and digits again at the end:
--   1. the error's message, else the call's; control characters and runs of blanks as one blank
--   2. marks \x01 in front of digits to keep: behind `status`, `error code`, `HTTP`, `with code`, `MCP error`, AADSTS, ...
--   3. and of a status 4xx or 5xx at the start, in brackets, behind `returned` or in front of its own name (`404 Not Found`)
--   4. marked digits become \x0e to \x17
--   5. in JSON (and in what Python prints like it) quotes become \x03 and \x04, for there they hold names and sentences; elsewhere
--      up to three words in quotes are a value
--   6. values become \x02: quoted ones, URLs, e-mail addresses, dates, paths, whatever has a digit, hexadecimal, ids of mixed case
--   7. lists of values become one, however long they are; what was hidden in 4 and 5 comes back
--   8. type and code of the error go in front, unless the text has them; a text that is nothing but a name with a number in it
--      (`ToolRouterV2_NoActiveConnection`) stays as it is
--   9. a text over 1000 characters is cut, with a hash of the whole, so that different ones stay apart
ALTER TABLE tool_executions ADD COLUMN IF NOT EXISTS failure_pattern String MATERIALIZED if(status != 'failed', '',
    arrayMap(whole -> if(lengthUTF8(whole) <= 1000, whole,
        concat(substringUTF8(whole, 1, 980), '... ', lower(hex(sipHash64(whole))))),
    arrayMap(said -> concat(
        if(error_type = '' OR position(said, error_type) > 0, '', error_type),
        if(error_type = '' OR position(said, error_type) > 0 OR error_code = '' OR position(said, error_code) > 0, '', ' '),
        if(error_code = '' OR position(said, error_code) > 0, '', error_code),
        if((error_type = '' OR position(said, error_type) > 0) AND (error_code = '' OR position(said, error_code) > 0), '', ': '),
        if(said = '<*>' AND match(if(error_message != '', error_message, message), '^[A-Za-z_.]+[0-9]{1,2}[A-Za-z_.]+$'),
            if(error_message != '', error_message, message), said)),
    [translate(
    replaceAll(
    replaceRegexpAll(
    replaceRegexpAll(
    arrayMap(text -> multiIf(
        match(text, '[{,]\\s*"[\\w.-]+"\\s*:'), translate(text, '"', '\x03'),
        match(text, '[{,]\\s*\'[\\w.-]+\'\\s*:'), translate(text, '"\'', '\x03\x04'),
        text), [
    replaceAll(
    replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(
    replaceRegexpAll(
    replaceRegexpAll(
    trimBoth(replaceRegexpAll(multiIf(status != 'failed', '', error_message != '', error_message, message), '[\\x00-\\x1f]+ *|  +', ' ')),
        concat('(\\b(?:',
            '(?i:(?:(?:error|status|response|http|exit|return|reason|result|err|sub|api)[ _-]?code|sqlstate|errno|status)["\']?[ :=(#]{1,3}["\']?)-?',
            '|(?:\\w*(?i:error|exception)|(?i:fault)) [(#]?-?',
            '|(?i:with) (?i:code)[ :=]{1,2}-?',
            '|(?i:http)(?:/[12](?:\\.[01])?)?[ :]{1,2}',
            '|AADSTS|ORA-|ERR_?|PGRST',
            '|(?i:oauth|base|sha-?|utf-?))',
            '|["\'({,] ?(?i:code)["\']?[ :=]{1,3}["\']?-?',
            ')([0-9])([0-9]?)([0-9]?)([0-9]?)([0-9]?)([0-9]?)\\b'),
        '\\1\x01\\2\x01\\3\x01\\4\x01\\5\x01\\6\x01\\7'),
        concat('(^|[(\\[\'"]|\\b(?i:returned|responded with|response|received|got|error:|status:) )([45])([0-9])([0-9])',
            '($|[:\x3b)\\]"\'}{|]|[,.](?: |$)| [-{(]| (?i:client|server|bad|unauthori[sz]ed|payment|forbidden|not found|method|conflict|gone',
            '|unprocessable|too many|internal|service|gateway|error)\\b)',
            '|\\b([45])([0-9])([0-9])( (?:Client Error|Server Error|Bad Request|Unauthorized|Payment Required|Forbidden|Not Found',
            '|Method Not|Conflict|Gone|Unprocessable|Too Many|Internal Server|Bad Gateway|Service Un|Gateway Time))'),
        '\\1\x01\\2\x01\\3\x01\\4\x01\\6\x01\\7\x01\\8\\5\\9'),
        '\x010', '\x0e'), '\x011', '\x0f'), '\x012', '\x10'), '\x013', '\x11'), '\x014', '\x12'),
        '\x015', '\x13'), '\x016', '\x14'), '\x017', '\x15'), '\x018', '\x16'), '\x019', '\x17'),
        '\x01', '')
    ])[1],
        concat(
            '\\B"[^"\\s\x0e-\x17]+(?: [^"\\s\x0e-\x17]+(?: [^"\\s\x0e-\x17]+)?)?"\\B|\\B\'[^\'\\s\x0e-\x17]+(?: [^\'\\s\x0e-\x17]+(?: [^\'\\s\x0e-\x17]+)?)?\'\\B',
            '|\\B`[^`\\s\x0e-\x17]+(?: [^`\\s\x0e-\x17]+(?: [^`\\s\x0e-\x17]+)?)?`\\B|“[^”\\s\x0e-\x17]+(?: [^”\\s\x0e-\x17]+(?: [^”\\s\x0e-\x17]+)?)?”',
            '|\\\\["\x03][^"\x03\\\\]+\\\\["\x03]',
            '|\\b[A-Za-z][A-Za-z0-9+.-]+://[^\\s"\'\x03\x04<>)\\]}]*[^\\s"\'\x03\x04<>)\\]}.,\x3b:!?]',
            '|[A-Za-z0-9_.+%-]+@[A-Za-z0-9_-]+(?:\\.[A-Za-z0-9_-]+)+',
            '|(?:\\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?\\b',
            '(?:[0-9][0-9]? (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*',
            '|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* [0-9][0-9]?)',
            ',? [0-9]+(?:,? [0-9:.]+)?(?: (?:GMT|UTC|Z))?(?: ?[+-][0-9:]+)?\\b',
            '|\\B/[\\w.%@~+:?=&#-]+(?:/[\\w.%@~+:?=&#-]*)*|\\b[A-Za-z]:\\\\[^\\s"\'\x03\x04<>|]*[^\\s"\'\x03\x04<>|)\\]}.,\x3b:!?]|\\b[\\w.-]+(?:/[\\w.-]+)+\\.[A-Za-z]\\w*\\b',
            '|(?:\\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?(?:\\B[-+])?\\b[\\w-]*[0-9][\\w-]*(?:[.:,+/][\\w-]*[0-9][\\w-]*)*',
            '|\\b[A-Fa-f]{8,}\\b|\\b[a-z]+_[\\w-]*[a-z][\\w-]*[A-Z][\\w-]*|\\b[a-z]+_[\\w-]*[A-Z][\\w-]*[a-z][\\w-]*'),
        '\x02'),
        '\x02(?:(?:, ?|\\x3b ?| | and )?\x02)+', '\x02'),
        '\x02', '<*>'),
        '\x03\x04\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17', '"\'0123456789')
    ]))[1])
    CODEC(ZSTD(1)) AFTER error_type;

-- Calls that one call made.
ALTER TABLE tool_executions ADD INDEX IF NOT EXISTS by_parent parent_log_id TYPE bloom_filter(0.01) GRANULARITY 1;
