// Of a pair's reviews, what share finds issues? A count alone blames the pair that works the most.
MATCH (reviewer:Agent)-[r:REVIEWED]->(t:Task)
WHERE r.found_issues IS NOT NULL
MATCH (t)<-[:IMPLEMENTED]-(coder:Agent)
WITH DISTINCT coder.model AS coder_model, reviewer.model AS reviewer_model, r
WITH coder_model, reviewer_model, count(r) AS reviews,
     sum(CASE WHEN r.found_issues THEN 1 ELSE 0 END) AS with_issues
RETURN coder_model, reviewer_model, reviews, with_issues, toFloat(with_issues) / reviews AS issue_rate
ORDER BY issue_rate, reviews DESC, coder_model, reviewer_model
