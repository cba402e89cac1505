-- How the profile is paced: the factor in millionths, the ceiling, calls in flight, microseconds that nobody is asked, and
-- microseconds since the last answer (-1 for none).
local held = math.max(0, (S.held_until or 0) - now)
local answered = S.answered_at and math.max(0, now - S.answered_at) or -1
return {math.floor(factor() * 1000000), math.floor(ceiling()), in_flight(), math.ceil(held), math.floor(answered)}
