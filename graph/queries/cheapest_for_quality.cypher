// Which workflows cost the least for the quality they reach?
MATCH (t:Task)-[:RUN_OF]->(d:Definition)
WHERE t.status = 'completed' AND t.cost_usd IS NOT NULL AND t.quality > 0
RETURN d.name AS workflow, d.version AS version, count(t) AS runs, avg(t.quality) AS avg_quality,
       avg(t.cost_usd) AS avg_cost_usd, avg(t.cost_usd) / avg(t.quality) AS usd_per_quality
ORDER BY usd_per_quality, workflow, version
