-- Every pass asks for grants whose outcome was never learnt. They are rare, and intents are many.
CREATE INDEX intent_of_unknown_outcome ON intent (created_at) WHERE outcome = 'unknown';
