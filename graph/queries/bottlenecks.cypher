// Which steps take the longest, and whose are they?
MATCH (a:Agent)-[r]->(t:Task)
RETURN t.workflow AS workflow, r.step AS step, a.name AS agent, a.model AS model, count(r) AS executions,
       avg(r.latency_ms) AS avg_latency_ms, percentileCont(r.latency_ms, 0.95) AS p95_latency_ms
ORDER BY avg_latency_ms DESC, workflow, step
