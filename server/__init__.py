"""Online: HTTP over text over the engine. Stands on `adapters`; never imports `training`."""
