// What's the average refinement time?
MATCH (a:Agent)-[r:REFINED]->(t:Task)
RETURN avg(r.latency_ms) as avg_refinement_ms
