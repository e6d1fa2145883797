-- What was tried in vain in the last weeks is asked for in every look at the record. It is rare, and intents are many.
CREATE INDEX intent_in_vain ON intent (completed_at) WHERE outcome <> 'succeeded';
