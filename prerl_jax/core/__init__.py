"""The mathematics: spaces, advantages, objectives, aggregations, phases and the train step, as pure functions."""
