select this is not applied;
