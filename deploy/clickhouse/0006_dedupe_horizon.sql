-- What the owner's filter of known ids holds of a partition, and since when (acceptance) it holds all; 1970: all there ever were.
ALTER TABLE progress
    ADD COLUMN IF NOT EXISTS known_ids UInt64 AFTER complete_until,
    ADD COLUMN IF NOT EXISTS known_since DateTime64(3, 'UTC') AFTER known_ids;
