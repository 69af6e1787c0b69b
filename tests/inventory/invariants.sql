-- name: stock_never_negative
-- claim: No item's stock is below zero.
SELECT id, stock FROM items WHERE stock < 0;

-- name: sales_agree_with_stock
-- claim: What was sold of an item and what is left of it add up to the five it started with.
SELECT i.id, i.stock, coalesce(sum(s.quantity), 0) AS sold
  FROM items i
  LEFT JOIN sales s ON s.item_id = i.id
 WHERE EXISTS (SELECT FROM harness.operations o WHERE o.key = i.id::text)
 GROUP BY i.id
HAVING i.stock + coalesce(sum(s.quantity), 0) <> 5;

-- name: one_sale_per_accepted
-- claim: Every accepted call left one sale, and no other call did.
SELECT i.id, count(DISTINCT s.id) AS sales, count(DISTINCT o.number) AS accepted
  FROM items i
  LEFT JOIN sales s ON s.item_id = i.id
  LEFT JOIN harness.operations o ON o.key = i.id::text AND o.label = 'accepted' AND NOT o.rolled_back
 WHERE NOT EXISTS (SELECT FROM harness.operations d WHERE d.key = i.id::text AND d.effect = 'in doubt')
 GROUP BY i.id
HAVING count(DISTINCT s.id) <> count(DISTINCT o.number);
